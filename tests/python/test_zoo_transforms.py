"""Patches and probes in models that differentiate a part of themselves by functorch's transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph, ProbePatch, ZeroPatch

TRANSFORMS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "jacrev": lambda inner, x: torch.func.jacrev(inner)(x),
    "jacfwd": lambda inner, x: torch.func.jacfwd(inner)(x),
    "jvp": lambda inner, x: torch.func.jvp(inner, (x,), (torch.ones_like(x),))[1],
    "vjp": lambda inner, x: torch.func.vjp(inner, x)[1](torch.ones(2, 3))[0],
    "vmap of grad": lambda inner, x: torch.vmap(torch.func.grad(lambda row: inner(row).sum()))(x),
    "grad of grad": lambda inner, x: torch.func.grad(
        lambda y: torch.func.grad(lambda z: inner(z).pow(2).sum())(y).pow(2).sum()
    )(x),
}


class Differentiated(nn.Module):
    def __init__(self, transform: str) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
        self.transform = transform

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = TRANSFORMS[self.transform](self.inner, x)
        return result


@pytest.fixture(params=TRANSFORMS)
def model(request: pytest.FixtureRequest) -> Differentiated:
    torch.manual_seed(0)
    return Differentiated(request.param)


@pytest.fixture(params=[False, True], ids=["without grad mode", "with grad mode"], autouse=True)
def grad_mode(request: pytest.FixtureRequest) -> Any:
    with torch.set_grad_enabled(request.param):
        yield


X = torch.tensor([[1.0, -2.0, 0.5, 0.25], [0.0, 1.0, -1.0, 2.0]])


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_parameter_is_patched_inside_a_transform(model: Differentiated, name: str) -> None:
    pg = PatchableGraph(model, X)
    parameter = getattr(model.inner[0], name)
    before = parameter.detach().clone()
    bare = model(X)
    path = f"inner.sub_0.{name}"
    with pg.patch({path: AddPatch(value=-0.0)}):
        assert torch.equal(pg(X), bare)
    with pg.patch({path: AddPatch(value=0.5, slice=(0,))}):
        patched = pg(X)
    assert torch.equal(parameter, before)
    with torch.no_grad():
        parameter[0] += 0.5
    assert torch.equal(patched, model(X)) and not torch.equal(patched, bare)


@pytest.mark.parametrize("path", ["inner.sub_0.weight", "inner.sub_0.input", "inner.sub_0.linear", "inner.output"])
def test_a_probe_keeps_what_no_transform_owns(model: Differentiated, path: str) -> None:
    pg = PatchableGraph(model, X)
    bare = pg(X)
    with pg.patch({path: (probe := ProbePatch())}, on_missing="raise"):
        assert torch.equal(pg(X), bare)
    kept = probe.activation
    assert kept is not None
    assert not torch._C._functorch.is_functorch_wrapped_tensor(kept)
    assert torch.isfinite(kept).all() and kept.untyped_storage().nbytes() >= kept.numel() * 4


def test_zero_inside_a_transform(model: Differentiated) -> None:
    pg = PatchableGraph(model, X)
    with pg.patch({"inner.sub_0.weight": ZeroPatch()}):
        assert not pg(X).any()
