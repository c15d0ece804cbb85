"""Facts about a forward's arguments are shared by all modules of a class, and follow later changes of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from libgraphpatch import PatchableGraph, ReplacePatch


class Scaling(nn.Module):
    def forward(self, x: Tensor, by: float = 2.0) -> Tensor:
        return x * by


def outer(*scaling: nn.Module) -> nn.Module:
    return nn.Sequential(*scaling)


@torch.no_grad()
def test_defaults_are_those_of_now() -> None:
    x = torch.ones(3)
    for by in (2.0, 3.0):
        Scaling.forward.__defaults__ = (by,)
        pg = PatchableGraph(outer(Scaling(), Scaling()), x)
        with pg.patch({"sub_1.by": ReplacePatch(value=by + 1)}):
            assert torch.equal(pg(x), x * by * (by + 1))
        assert torch.equal(pg(x), x * by * by)


@torch.no_grad()
def test_each_forward_has_its_own_names() -> None:
    def other(self: Any, first: Tensor, factor: float = 5.0) -> Tensor:
        return first * factor

    x, plain, replaced, bound = torch.ones(3), Scaling(), Scaling(), Scaling()
    replaced.forward = lambda y, scale=7.0: y * scale
    bound.forward = other.__get__(bound)
    pg = PatchableGraph(outer(plain, replaced, bound), x)
    names = [[str(node).rpartition(".")[2] for node in pg.graph[f"sub_{i}"]][:2] for i in range(3)]
    assert names == [["x", "by"], ["y", "scale"], ["first", "factor"]]


@torch.no_grad()
def test_a_forward_whose_code_is_replaced_has_the_new_names() -> None:
    class Changing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    x = torch.zeros(2)
    assert "x" in PatchableGraph(outer(Changing()), x).graph["sub_0"]
    Changing.forward.__code__ = (lambda self, renamed: renamed + 1).__code__
    assert "renamed" in PatchableGraph(outer(Changing()), x).graph["sub_0"]
