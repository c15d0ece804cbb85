"""A patched parameter whose memory is read past the patch: the patch does not hold there, and a note says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph, ProbePatch


class Net(nn.Module):
    def __init__(self, other: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 3))
        self.before = self.w.detach()[1:]
        self.twin = nn.Parameter(self.w.detach())
        self.sub = nn.Identity()
        self.other = [other]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x @ self.w, self.other[0](self, x)


READ_PAST = {
    "data": lambda net, x: x @ net.w.data,
    "a view of data": lambda net, x: x @ net.w.data.t(),
    "in a list": lambda net, x: torch.cat([x, net.w.data]),
    "a view that was made before": lambda net, x: net.before * 2,
    "handed to a module": lambda net, x: net.sub(net.w.data) * 2,
    "another parameter of the same memory": lambda net, x: x @ net.twin,
}
READ_PATCHED = {
    "detach": lambda net, x: x @ net.w.detach(),
    "a view": lambda net, x: x @ net.w.view(3, 3).t(),
    "the parameter": lambda net, x: x @ net.w,
    "data that is written": lambda net, x: net.w.data.add_(1) * 0 + x @ net.w,
    "numpy": lambda net, x: x @ torch.from_numpy(net.w.detach().numpy()),
}
X = torch.ones(3, 3)


def told(pg: PatchableGraph) -> list[str]:
    return [note for note in pg.notes if "by another tensor" in note]


@pytest.mark.parametrize("way", READ_PAST)
def test_memory_that_is_read_past_the_patch_is_told(way: str) -> None:
    net = Net(READ_PAST[way])
    bare = net(X)
    pg = PatchableGraph(net, X)
    with pg.patch({"w": ProbePatch()}):
        pg(X)
    assert not told(pg)
    with pg.patch({"w": AddPatch(value=1.0)}):
        for _ in range(2):
            patched, other = pg(X)
            assert torch.equal(patched, X @ (net.w + 1)) and torch.equal(other, bare[1])
    assert len(told(pg)) == 1 and told(pg)[0].startswith("w=add:1.0: an operation reads the parameter's memory")


@pytest.mark.parametrize("way", READ_PATCHED)
def test_what_reads_the_patched_parameter_is_not(way: str) -> None:
    net = Net(READ_PATCHED[way])
    pg = PatchableGraph(net, X)
    with pg.patch({"w": AddPatch(value=1.0)}):
        pg(X)
    assert not told(pg)
