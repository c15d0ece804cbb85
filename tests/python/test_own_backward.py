"""A patch inside a function that has its own backward must never give the gradient of the unpatched value."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from libgraphpatch import AddPatch, CustomPatch, PatchableGraph, PatchError, ProbePatch, ZeroPatch
from nets import Function


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        doubled = x * 2
        ctx.save_for_backward(x)
        return doubled * x / 2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] * 2 * x


X = torch.tensor([1.0, -2.0, 3.0])


@pytest.fixture
def pg() -> PatchableGraph:
    return PatchableGraph(Function(lambda x: Square.apply(x + 1) * 3), X)


def test_where_gradients_are_wanted_it_is_refused(pg: PatchableGraph) -> None:
    x = X.clone().requires_grad_()
    with pg.patch({"mul": ZeroPatch()}), pytest.raises(PatchError, match=r"mul.*torch\.autograd\.Function"):
        pg(x)
    probe = ProbePatch()
    with pg.patch({"mul": AddPatch(value=1.0)}, on_error="skip"), pg.patch({"mul": probe}):
        result = pg(x)
    assert torch.equal(result, (X + 1) ** 2 * 3) and torch.equal(probe.activation, (X + 1) * 2)
    result.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, 6 * (X + 1))
    with pg.patch({"mul": CustomPatch(custom_op=torch.neg)}), pytest.raises(PatchError, match="autograd.Function"):
        pg(x)


def test_what_goes_in_and_comes_out_is_patched(pg: PatchableGraph) -> None:
    x = X.clone().requires_grad_()
    with pg.patch({"add": AddPatch(value=1.0), "mul_2": AddPatch(value=0.5)}):
        result = pg(x)
        result.sum().backward()
    assert torch.equal(result, (X + 2) ** 2 * 3 + 0.5)
    assert x.grad is not None and torch.equal(x.grad, 6 * (X + 2))


def test_without_gradients_it_is_patched(pg: PatchableGraph) -> None:
    expected = (2 * (X + 1) + 1) * (X + 1) / 2 * 3
    with pg.patch({"mul": AddPatch(value=1.0)}):
        assert torch.equal(pg(X), expected)
        with torch.no_grad():
            assert torch.equal(pg(X.clone().requires_grad_()), expected)
