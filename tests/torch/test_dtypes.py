"""Patches on every real dtype, on fresh, non-contiguous and contiguous values, against PyTorch's own assignment."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

import models
from changes import SLICES, add, compare, outcome, replace, zero
from reference import Change, steps, values
from support import Saved, same_bits

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
]

CHANGES: dict[str, Callable[[Any], Change]] = {
    "zero": zero,
    "replace:3": lambda index: replace(3, index),
    "replace:0.1": lambda index: replace(0.1, index),
    "replace:-1": lambda index: replace(-1, index),
    "replace:300": lambda index: replace(300, index),
    "replace:1e30": lambda index: replace(1e30, index),
    "replace:inf": lambda index: replace(float("inf"), index),
    "replace:nan": lambda index: replace(float("nan"), index),
    "replace:9007199254740993": lambda index: replace(9007199254740993, index),
    "add:1": lambda index: add(1, index),
    "add:0.1": lambda index: add(0.1, index),
    "add:-7": lambda index: add(-7, index),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).split(".")[1])
def test_patches_convert_as_pytorch_does(exported: Callable[..., Saved], dtype: torch.dtype) -> None:
    x = values(dtype)
    saved = exported(f"steps-{dtype}", models.Steps(), (x,))
    patches: list[str] = []
    expected: list[Any] = []
    for path in ("clone", "transpose", "contiguous", "output|sub_1"):
        for text, index in SLICES.items():
            for name, make in CHANGES.items():
                patches.append(f"{path}{text}={name}")
                expected.append(outcome(lambda: steps(x, {path: make(index)})))
    swept = saved.sweep([[patch] for patch in patches])
    compare(patches, swept.results, expected, same_bits)
    assert same_bits(swept.inputs, (x,))


def test_refusal_reaches_the_program(exported: Callable[..., Saved]) -> None:
    x = values(torch.int64)
    saved = exported(f"steps-{torch.int64}", models.Steps(), (x,))
    result = saved.run(patches=["clone[0]=add:0.5"], tree=False, extra=["--on-error", "raise"])
    assert result.code == 1 and re.search(r"clone.*[(\[]4, 5[)\]].*\[0\]", result.stderr)


def test_skip_leaves_the_value_alone_and_counts_it(exported: Callable[..., Saved]) -> None:
    x = values(torch.int64)
    saved = exported(f"steps-{torch.int64}", models.Steps(), (x,))
    result = saved.run("--runs", 2, patches=["clone=add:0.5"], tree=False, extra=["--on-error", "skip", "--summary"])
    assert all(same_bits(run, steps(x, {})) for run in result.outputs[0])
    # The program ended well, but a patch failed in both runs.
    assert result.code == 3 and "clone" in result.stderr
