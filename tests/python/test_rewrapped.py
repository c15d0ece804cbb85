"""Values that get a Python object of another class: by `nn.Parameter(x)` in the middle of a model (as accelerate does
for weights that it has moved away), or by `as_subclass`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, CustomPatch, PatchableGraph, ProbePatch, RecordPatch, ZeroPatch

X = torch.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])


class Named(Tensor):
    """A class of the user's."""


class MakesParameter(nn.Module):
    path = "detach"

    def forward(self, x: Tensor) -> Tensor:
        made = nn.Parameter(x * 2, requires_grad=False)
        assert type(made) is nn.Parameter
        return made.exp()


class MakesSubclass(nn.Module):
    path = "alias"

    def forward(self, x: Tensor) -> Tensor:
        made = (x * 2).as_subclass(Named)
        assert type(made) is Named
        return made.exp().as_subclass(Tensor)


@pytest.mark.parametrize("kind", [MakesParameter, MakesSubclass])
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("grad_mode", [False, True])
def test_what_python_gives_another_class_takes_patches(kind: Any, requires_grad: bool, grad_mode: bool) -> None:
    model, x = kind(), X.clone().requires_grad_(requires_grad)
    with torch.set_grad_enabled(grad_mode):
        pg = PatchableGraph(model, x)
        bare = model(x)
        probe, record = ProbePatch(), RecordPatch()
        for patches in ([probe], [record], [AddPatch(value=-0.0)], [CustomPatch(custom_op=lambda value: value)]):
            with pg.patch({kind.path: patches}, on_missing="raise"):
                found = pg(x)
            assert torch.equal(found, bare) and found.requires_grad == bare.requires_grad
        assert probe.activation is not None and torch.equal(probe.activation, X * 2)
        assert len(record.activations) == 1
        with pg.patch({kind.path: ZeroPatch()}):
            assert torch.equal(pg(x), torch.ones_like(X))
        with pg.patch({kind.path: CustomPatch(custom_op=lambda value: value + 1)}):
            assert torch.equal(pg(x), (X * 2 + 1).exp())


def test_gradients_go_through_a_value_that_was_seen() -> None:
    model, x = MakesSubclass(), X.clone().requires_grad_()
    pg = PatchableGraph(model, x)
    with pg.patch({"alias": CustomPatch(custom_op=lambda value: value * 3)}):
        pg(x).sum().backward()
    wanted = X.clone().requires_grad_()
    (wanted * 2 * 3).exp().sum().backward()
    assert x.grad is not None and wanted.grad is not None and torch.equal(x.grad, wanted.grad)
