"""A patched copy has the layout and flags of the original, so that kernels do not take another path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph, ZeroPatch
from nets import Function

NOTHING = {
    "add -0.0": AddPatch(value=-0.0),
    "an empty slice": ZeroPatch(slice=(slice(0, 0),)),
}


def layout(x: Tensor) -> tuple[object, ...]:
    return x.stride(), x.data_ptr() % 64, x.is_conj(), x.is_neg(), x.requires_grad, x.dtype


# A view of a fresh value, and the operation that makes it.
VIEWS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "second half of columns": (lambda y: y.narrow(1, 12, 12), "narrow"),
    "one of eight columns": (lambda y: y.narrow(1, 9, 3), "narrow"),
    "all columns but the first": (lambda y: y[..., 1:], "slice_1"),
    "every third row": (lambda y: y[::3], "slice_1"),
    "one column": (lambda y: y.select(1, 5), "select"),
    "transposed": (lambda y: y.t(), "t"),
    "permuted": (lambda y: y.view(4, 3, 2, 24).permute(3, 0, 2, 1), "permute"),
    "a diagonal": (lambda y: y.diagonal(), "diagonal"),
    "one element": (lambda y: y.narrow(0, 3, 1).narrow(1, 7, 1), "narrow_1"),
    "expanded": (lambda y: y.narrow(0, 0, 1).expand(5, 24), "expand"),
    "windows": (lambda y: y.view(-1).unfold(0, 8, 2), "unfold"),
    "channels last": (lambda y: y.view(2, 3, 4, 24).contiguous(memory_format=torch.channels_last), "contiguous"),
}


@pytest.mark.parametrize("patch", NOTHING)
@pytest.mark.parametrize("name", VIEWS)
def test_a_patch_that_changes_nothing_changes_no_stride(name: str, patch: str) -> None:
    view, operation = VIEWS[name]
    seen: list[tuple[object, ...]] = []

    def function(x: Tensor) -> Tensor:
        value = view(x + 0)
        seen.append(layout(value))
        return value * 1

    x = torch.randn(24, 24)
    pg = PatchableGraph(Function(function), x)
    if operation not in dir(pg.graph):
        operation = operation.removesuffix("_1")
    with torch.no_grad():
        bare = pg(x)
        with pg.patch({operation: NOTHING[patch]}):
            patched = pg(x)
    assert torch.equal(bare.view(torch.int32), patched.view(torch.int32))
    assert seen[-1] == seen[-2]


def test_conj_and_neg_bits_stay() -> None:
    seen: list[tuple[object, ...]] = []

    def function(x: Tensor) -> Tensor:
        y = (x + 0).conj()
        seen.append(layout(y))
        z = y.imag
        seen.append(layout(z))
        return y.sum() + z.sum()

    x = torch.randn(6, 5, dtype=torch.complex64)
    pg = PatchableGraph(Function(function), x)
    del seen[:]
    with torch.no_grad():
        bare = pg(x)
        with pg.patch({"_conj": AddPatch(value=-0.0)}):
            assert torch.equal(pg(x), bare)
    assert seen[2][2:] == seen[0][2:] and seen[2][0] == seen[0][0] and seen[0][2] and seen[1][3]
    with pg.patch({"_conj": AddPatch(value=1j)}):
        conj = x.conj() + 1j
        torch.testing.assert_close(pg(x), conj.sum() + conj.imag.sum())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("rows", [1, 7])
def test_a_parameter_keeps_its_flag_without_gradients(rows: int, mode: Callable[[], Any]) -> None:
    """matmul folds a batch depending on requires_grad, even without gradients, which may change the last bits."""
    flags: list[bool] = []

    def read(weight: Tensor) -> Tensor:
        flags.append(weight.requires_grad)
        return weight

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(33, 17))

        def forward(self, x: Tensor) -> Tensor:
            # This `dropout` returns its input, so that `read` sees the tensor that the operation received.
            return torch.matmul(x, self.weight) + F.linear(x, read(F.dropout(self.weight, 0.5, False)).t())

    x = torch.randn(5, rows, 33)
    pg = PatchableGraph(Net(), x)
    with mode():
        bare = pg(x)
        with pg.patch({"weight": AddPatch(value=-0.0)}):
            assert torch.equal(pg(x), bare)
    assert flags[-1] and flags[-2]


def test_what_overlaps_itself_is_patched_as_a_whole() -> None:
    """If the patch changes something, elements that shared memory become separate ones."""
    pg = PatchableGraph(Function(lambda x: (x + 0).narrow(0, 0, 1).expand(4, 3) * 1), torch.ones(2, 3))
    with pg.patch({"expand": AddPatch(value=1.0, slice=(2,))}):
        assert pg(torch.ones(2, 3)).tolist() == [[1.0] * 3, [1.0] * 3, [2.0] * 3, [1.0] * 3]
