"""Parameters and buffers that a model gives other memory during a call: a patch holds for what they are then."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph, ZeroPatch


def by_data(held: Tensor, value: Tensor) -> None:
    held.data = value


def by_set(held: Tensor, value: Tensor) -> None:
    held.set_(value)  # type: ignore[call-overload]


def by_storage(held: Tensor, value: Tensor) -> None:
    """As FSDP does: the memory is given back, and filled again."""
    size = held.untyped_storage().nbytes()
    held.untyped_storage().resize_(0)
    held.untyped_storage().resize_(size)
    held.copy_(value)


def by_view(held: Tensor, value: Tensor) -> None:
    """Another place in memory that stays."""
    both = torch.stack([held.detach() * 0, value])
    held.data = both[0]
    held.data = both[1]


class Swaps(nn.Module):
    def __init__(self, swap: Callable[[Tensor, Tensor], None]) -> None:
        super().__init__()
        self.register_buffer("held", torch.ones(2, 4))
        self.swap = swap

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        results = []
        for value in (3.0, 4.0, 1.0):
            results.append(x * self.held)
            self.swap(self.held, torch.full((2, 4), value))
        return tuple(results)


@pytest.mark.parametrize("swap", [by_data, by_set, by_storage, by_view])
def test_each_reading_sees_todays_memory(swap: Callable[[Tensor, Tensor], None]) -> None:
    x = torch.randn(2, 4)
    module = Swaps(swap)
    with torch.no_grad():
        bare = module(x)
        pg = PatchableGraph(module, x)
        with pg.patch({"held": AddPatch(value=-0.0)}, on_missing="raise"):
            assert all(map(torch.equal, pg(x), bare))
        with pg.patch({"held": AddPatch(value=0.5)}, on_missing="raise"):
            assert all(map(torch.equal, pg(x), [x * 1.5, x * 3.5, x * 4.5]))
        with pg.patch({"held": ZeroPatch()}, on_missing="raise"):
            assert not any(map(torch.any, pg(x)))
        assert all(map(torch.equal, module(x), bare))
