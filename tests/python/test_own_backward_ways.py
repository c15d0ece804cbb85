"""More ways to come to a function that has its own backward: the gradient of a patched value is right, or the patch is
refused. The right one is that of the same model without such a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, CustomPatch, Patch, PatchableGraph, PatchError, ZeroPatch
from nets import Function

X = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.2, -1.0]])
W = torch.tensor([0.5, -1.0, 2.0])


def plain(x: Tensor, w: Tensor) -> Tensor:
    return (x * w).exp()


class Own(torch.autograd.Function):
    """``plain`` with a backward of its own, which works in transforms as well."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, w: Tensor) -> Tensor:
        return (x * w).exp()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        whole = gradients[0] * (x * w).exp()
        return whole * w, whole * x


class Nested(Own):
    @staticmethod
    def forward(x: Tensor, w: Tensor) -> Tensor:
        return Own.apply(x, w) * 1.0


# Kept under a name of its own before any PatchableGraph exists, as programs often do.
kept = Own.apply

Call = Callable[[Tensor, Tensor], Tensor]


def in_vmap(function: Call) -> Call:
    return lambda x, w: torch.func.vmap(function, in_dims=(0, None))(x, w)


def in_grad(function: Call) -> Call:
    return lambda x, w: torch.func.grad(lambda value: function(value, w).sum())(x)


# The function, and the same without a backward of its own.
WAYS: dict[str, tuple[Call, Call]] = {
    "kept": (kept, plain),
    "nested": (Nested.apply, lambda x, w: plain(x, w) * 1.0),
    "in vmap": (in_vmap(Own.apply), in_vmap(plain)),
    "in grad": (in_grad(Own.apply), in_grad(plain)),
}

PATCHES: dict[str, Callable[[], Patch[Tensor]]] = {
    "zero": lambda: ZeroPatch(slice=(..., 0)),
    "add": lambda: AddPatch(value=0.25),
    "custom": lambda: CustomPatch(custom_op=lambda value: value * 2),
}


class Net(nn.Module):
    """The weight is read before the function, in it, and behind it."""

    def __init__(self, function: Call) -> None:
        super().__init__()
        self.w = nn.Parameter(W.clone())
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x * self.w + 0.5, self.w) * 3 + self.w


def results(function: Call, path: str, patch: Patch[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    net, x = Net(function), X.clone().requires_grad_()
    pg = PatchableGraph(net, x)
    with pg.patch({path: patch}, on_missing="raise"):
        y = pg(x)
    return (y.detach(), *torch.autograd.grad(y.sum(), [x, net.w]))


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("path", ["x", "w", "mul", "add", "mul_1", "exp", "output"])
@pytest.mark.parametrize("way", WAYS)
def test_the_gradient_is_right_or_the_patch_is_refused(way: str, path: str, patch: str) -> None:
    own, without = WAYS[way]
    inside = path in ("w", "mul_1", "exp")
    if inside:
        with pytest.raises(PatchError, match=r"torch\.autograd\.Function"):
            results(own, path, PATCHES[patch]())
        return
    found, wanted = results(own, path, PATCHES[patch]()), results(without, path, PATCHES[patch]())
    for left, right in zip(found, wanted, strict=True):
        assert torch.allclose(left, right, atol=1e-5)


def test_functions_see_values_that_a_transform_has_wrapped() -> None:
    pg = PatchableGraph(Function(lambda x: torch.func.vmap(lambda row: row.exp() + 1)(x)), X)
    with pg.patch({"exp": CustomPatch(custom_op=lambda value: value * 2)}, on_missing="raise"):
        assert torch.equal(pg(X), X.exp() * 2 + 1)


def test_a_weight_that_is_left_alone_in_the_function_is_patched_around_it() -> None:
    net = Net(Own.apply)
    pg, x = PatchableGraph(net, X), X.clone().requires_grad_()
    with pg.patch({"w": AddPatch(value=1.0)}, on_error="skip"):
        y = pg(x)
    expected = plain(X * (W + 1) + 0.5, W) * 3 + (W + 1)
    assert torch.equal(y, expected)
    with pg.patch({"w": AddPatch(value=1.0)}), torch.no_grad():
        assert torch.equal(pg(X), plain(X * (W + 1) + 0.5, W + 1) * 3 + (W + 1))


def test_a_first_reader_in_the_function_does_not_hide_the_patch_from_the_others() -> None:
    w = nn.Parameter(W.clone())
    model = Function(lambda x: Own.apply(x, model.w) + model.w)
    model.w = w
    pg, x = PatchableGraph(model, X), X.clone().requires_grad_()
    with pg.patch({"w": AddPatch(value=1.0)}, on_error="skip"):
        y = pg(x)
    assert torch.equal(y, plain(X, W) + (W + 1))
