"""What a patch must do, computed by PyTorch itself: `tensor[slice] = value` and `tensor[slice] += value`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from reference import Change

# Slices as text in a patch, with the same index in Python.
SLICES: dict[str, Any] = {
    "": ...,
    "[0]": 0,
    "[-1]": -1,
    "[::2]": slice(None, None, 2),
    "[..., 1:3]": (..., slice(1, 3)),
}


def zero(index: Any) -> Change:
    def change(value: Tensor) -> None:
        value[index] = 0

    return change


def replace(number: float, index: Any) -> Change:
    def change(value: Tensor) -> None:
        value[index] = number

    return change


def add(number: float, index: Any) -> Change:
    def change(value: Tensor) -> None:
        value[index] += number

    return change


# Kinds of patches as text, with functions that do the same in PyTorch.
KINDS_OF_CHANGE: dict[str, Callable[[Any], Change]] = {
    "zero": zero,
    "replace:0.5": lambda index: replace(0.5, index),
    "add:1": lambda index: add(1, index),
}


def outcome(run: Callable[[], Any]) -> Any | None:
    """The result, or None where PyTorch itself refuses."""
    try:
        with torch.no_grad():
            return run()
    except (RuntimeError, IndexError):
        return None


def compare(patches: list[str], got: list[Any], expected: list[Any | None], same: Callable[[Any, Any], bool]) -> None:
    """Compares all cases before it fails, so that one failure does not hide others. A refusal must name the path."""
    wrong = []
    for patch, (ran, result), want in zip(patches, got, expected, strict=True):
        path = patch.split("=")[0].split("[")[0]
        if want is None:
            if ran or path not in result:
                wrong.append(f"{patch}: PyTorch refuses this, the patch gave {'an output' if ran else result!r}")
        elif not ran:
            wrong.append(f"{patch}: refused: {result}")
        elif not same(result, want):
            wrong.append(f"{patch}: another output")
    assert not wrong, f"{len(wrong)} of {len(patches)} cases:\n" + "\n".join(wrong[:40])
