"""Numbers as values of patches, at tensors of every dtype: a patch does what PyTorch's own indexed assignment does, and
is refused where that is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph, PatchError, ReplacePatch

DTYPES = [
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.uint16),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64),
]
NUMBERS = [
    2.5,
    -0.5,
    127.5,
    255.5,
    -128.5,
    65535.5,
    1e30,
    2,
    -1,
    200,
    300,
    2**24 + 1,
    2**53 + 1,
    2**63 - 1,
    -(2**63),
    True,
    2 + 0j,
    2 + 3j,
]
# Processors differ in the integers that they make of these numbers.
WITHOUT_INTEGER = [float("nan"), float("inf"), float("-inf")]


class Copy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


class Times(nn.Module):
    def forward(self, x: Tensor, times: int) -> Tensor:
        return x * times


def by_torch(x: Tensor, patch: AddPatch | ReplacePatch) -> Tensor | str:
    try:
        if isinstance(patch, AddPatch):
            x[...] += patch.value
        else:
            x[...] = patch.value
    except RuntimeError as why:
        return str(why)
    return x


def by_patch(x: Tensor, patch: AddPatch | ReplacePatch) -> Tensor | str:
    pg = PatchableGraph(Copy(), x)
    try:
        with pg.patch({"clone": patch}):
            patched: Tensor = pg(x)
    except PatchError as why:
        return str(why)
    return patched


def compare(dtype: torch.dtype, patch: AddPatch | ReplacePatch) -> None:
    x = torch.tensor([0, 1, 1, 0, 1]).to(dtype)
    expected, found = by_torch(x.clone(), patch), by_patch(x, patch)
    if isinstance(expected, str):
        assert isinstance(found, str) and expected in found, patch
    else:
        assert isinstance(found, Tensor) and found.dtype == expected.dtype, patch
        assert torch.allclose(found, expected, rtol=0, atol=0, equal_nan=True), patch


@pytest.mark.filterwarnings("ignore:Casting complex values to real")
@pytest.mark.parametrize("kind", [AddPatch, ReplacePatch])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_number_at_a_tensor(dtype: torch.dtype, kind: Any) -> None:
    for number in NUMBERS:
        for value in (number, torch.tensor(number), torch.tensor([number] * 5)):
            compare(dtype, kind(value=value))
    for number in WITHOUT_INTEGER if dtype.is_floating_point or dtype.is_complex else []:
        compare(dtype, kind(value=number))


@pytest.mark.parametrize("kind", [AddPatch, ReplacePatch])
@pytest.mark.parametrize("value", [2.5, float("nan"), 1 + 2j], ids=str)
def test_an_int_of_the_models_stays_one(kind: Any, value: Any) -> None:
    pg = PatchableGraph(Times(), torch.ones(2), 2)
    with pg.patch({"times": kind(value=value)}), pytest.raises(PatchError, match="the value is an int"):
        pg(torch.ones(2), 2)
    with pg.patch({"times": kind(value=3)}):
        assert pg(torch.ones(2), 2).tolist() == [5.0 if kind is AddPatch else 3.0] * 2


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2**200])
def test_an_integer_of_more_than_64_bits_is_refused_before_a_run(value: int) -> None:
    pg = PatchableGraph(Copy(), torch.ones(2))
    with pytest.raises(ValueError, match="more than 64 bits"), pg.patch({"clone": AddPatch(value=value)}):
        pytest.fail("the block was entered")
