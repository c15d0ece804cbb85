"""A model that exchanges tensors while it runs (`torch.utils.swap_tensors`) goes on as it does alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph, ProbePatch, ZeroPatch


@pytest.fixture(autouse=True)
def exchanges() -> Iterator[None]:
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


class Converts(nn.Module):
    """Computes in another dtype for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).double()
        self.a.double()
        y = self.a(y)
        self.a.float()
        return self.a(y.float())


class Exchanges(nn.Module):
    """Exchanges a weight, which it has used, with another one."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.other = nn.Parameter(torch.randn(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x) + F.linear(x, self.other)
        torch.utils.swap_tensors(self.a.weight, self.other)
        y = self.a(y) + F.linear(y, self.other)
        torch.utils.swap_tensors(self.a.weight, self.other)
        return self.a(y)


class Values(nn.Module):
    """Exchanges values that it has computed."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = x * 2, x + 1
        torch.utils.swap_tensors(a, b)
        return a * 3 + b


@torch.no_grad()
@pytest.mark.parametrize("kind", [Converts, Exchanges, Values])
def test_it_gives_what_it_gives_alone(kind: type[nn.Module]) -> None:
    module, x = kind(), torch.randn(2, 3)
    bare = module(x)
    pg = PatchableGraph(module, x)
    assert torch.equal(pg(x), bare)
    assert torch.equal(pg.record(x), bare)
    for path in [path for path in ("a.weight", "a.output", "mul", "add", "output") if path in pg.graph]:
        with pg.patch({path: [ProbePatch(), AddPatch(value=-0.0)]}, on_missing="raise"):
            assert torch.equal(pg(x), bare), path
    assert torch.equal(module(x), bare)


@torch.no_grad()
def test_a_weight_is_patched_where_it_was_read() -> None:
    module, x = Exchanges(), torch.randn(2, 3)
    pg = PatchableGraph(module, x)
    for _ in range(2):
        with pg.patch({"a.weight": ZeroPatch()}, on_missing="raise"):
            patched = pg(x)
        y = module.a.bias + F.linear(x, module.other)
        y = F.linear(y, module.other, module.a.bias) + F.linear(y, module.a.weight)
        assert torch.equal(patched, module.a(y))
