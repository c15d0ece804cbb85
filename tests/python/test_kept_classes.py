"""Where a patch puts another tensor in the place of a Parameter, or of a tensor of a class of the user's, the model gets
an object of the same class."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, CustomPatch, PatchableGraph, ProbePatch, ZeroPatch
from nets import Function

X = torch.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])
PATCHES: dict[str, Any] = {
    "add": lambda: AddPatch(value=1.0),
    "custom": lambda: CustomPatch(custom_op=lambda value: value.detach() + 1),
}


class Named(Tensor):
    """A class of the user's."""


class Moved(nn.Module):
    """Moves its weight and gives it to another module, as accelerate does: a module takes no plain tensor there."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.linear = nn.Parameter(torch.eye(3)), nn.Linear(3, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        moved: Any = self.w.to("cpu")
        assert type(moved) is nn.Parameter and moved.requires_grad
        self.linear.weight = moved
        y = self.linear(x)
        del self.linear.weight
        self.linear.weight = self.w
        return y


@pytest.mark.parametrize("patch", PATCHES)
@torch.no_grad()
def test_a_moved_parameter_is_a_parameter(patch: str) -> None:
    model = Moved()
    pg = PatchableGraph(model, X)
    with pg.patch({"to": PATCHES[patch]()}, on_missing="raise"):
        assert torch.equal(pg(X), X @ (torch.eye(3) + 1).T)
    assert torch.equal(pg(X), X) and torch.equal(model.w, torch.eye(3)) and model.linear.weight is model.w


class Reads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kinds: list[Any] = []

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        self.kinds.append((type(w), w.requires_grad, getattr(w, "mark", None)))
        return x * w


class Hands(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w, self.reads = nn.Parameter(torch.ones(3)), Reads()
        self.w.mark = "kept"  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        return self.reads(x, self.w)


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("grad_mode", [False, True])
@pytest.mark.parametrize("path", ["reads.w", "w"])
def test_a_parameter_that_is_handed_on_is_one(path: str, grad_mode: bool, patch: str) -> None:
    model = Hands()
    with torch.set_grad_enabled(grad_mode):
        pg = PatchableGraph(model, X)
        if path not in dir(pg.graph) and path == "w":
            pytest.fail("the parameter has no node")
        with pg.patch({path: PATCHES[patch]()}, on_missing="raise"):
            y = pg(X)
    assert torch.equal(y, X * 2)
    requires_grad = patch == "add" or not grad_mode  # the function has detached its value
    assert model.reads.kinds[-1] == (nn.Parameter, requires_grad, "kept")
    if grad_mode and requires_grad:
        y.sum().backward()
        assert model.w.grad is not None and torch.equal(model.w.grad, X.sum(0))


class Whole(nn.Module):
    """Gets, and returns, tensors of a class of the user's."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: list[Any] = []
        self.inner = Function(lambda value: value)

    def forward(self, x: Tensor) -> Tensor:
        self.kinds.append(type(x))
        y = self.inner(x)
        self.kinds.append(type(y))
        return torch.Tensor.exp(y)


@pytest.mark.parametrize("path", ["x", "inner.output"])
def test_a_class_of_the_users_is_kept(path: str) -> None:
    model, x = Whole(), X.clone().as_subclass(Named)
    pg = PatchableGraph(model, x)
    with pg.patch({path: AddPatch(value=1.0)}, on_missing="raise"):
        assert torch.equal(pg(x), (X + 1).exp())
    assert model.kinds[-2:] == [Named, Named]
    probe = ProbePatch()
    with pg.patch({path: [ZeroPatch(), probe]}):
        assert torch.equal(pg(x), torch.ones_like(X))
    assert probe.activation is not None and torch.equal(probe.activation, torch.zeros_like(X))
    assert torch.equal(x, X)
