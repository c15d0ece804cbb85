"""A patched parameter whose memory is read past the patch: the patch does not hold there, and a note says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph, ProbePatch


class Net(nn.Module):
    # Whether the other way of reading comes before the parameter itself is read.
    first = False

    def __init__(self, other: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 3))
        self.before = self.w.detach()[1:]
        self.twin = nn.Parameter(self.w.detach())
        self.sub = nn.Identity()
        self.other = [other]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.first:
            other = self.other[0](self, x)
            return x @ self.w, other
        return x @ self.w, self.other[0](self, x)


class Before(Net):
    first = True


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
    "data that is written": lambda net, x: (net.w.data.add_(1), x @ net.w)[1],
    "an element": lambda net, x: x @ net.w[0],
    "a view as another": lambda net, x: x @ net.w.view_as(x),
    "transposed": lambda net, x: x @ net.w.T,
    "numpy": lambda net, x: x @ torch.from_numpy(net.w.detach().numpy()),
}
X = torch.ones(3, 3)


def told(pg: PatchableGraph) -> list[str]:
    return [note for note in pg.notes if "by another tensor" in note]


@pytest.mark.parametrize("kind", [Net, Before])
@pytest.mark.parametrize("way", READ_PAST)
def test_memory_that_is_read_past_the_patch_is_told(way: str, kind: type[Net]) -> None:
    net = kind(READ_PAST[way])
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


@pytest.mark.parametrize("kind", [Net, Before])
@pytest.mark.parametrize("way", READ_PATCHED)
def test_what_reads_the_patched_parameter_is_not(way: str, kind: type[Net]) -> None:
    net = kind(READ_PATCHED[way])
    pg = PatchableGraph(net, X)
    with pg.patch({"w": AddPatch(value=1.0)}):
        pg(X)
    assert not told(pg)


def test_what_another_scope_read_before_is_not_told() -> None:
    """A patch holds in the scope that its path names: what is read around it is none of its business."""

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x @ self.inner.weight.data)

    net = Around()
    pg = PatchableGraph(net, X)
    with pg.patch({"inner.weight": AddPatch(value=1.0)}):
        expected = nn.functional.linear(X @ net.inner.weight, net.inner.weight + 1, net.inner.bias)
        assert torch.equal(pg(X), expected)
    assert not told(pg)


def test_parts_of_one_memory_are_told_apart() -> None:
    """Parameters that are parts of one memory, as some libraries flatten them."""

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            memory = torch.randn(18)
            self.w, self.v = nn.Parameter(memory[:9].view(3, 3)), nn.Parameter(memory[9:].view(3, 3))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            before = x @ self.v.data
            return before, x @ self.w

    net = Flat()
    pg = PatchableGraph(net, X)
    with pg.patch({"w": AddPatch(value=1.0)}):
        pg(X)
    assert not told(pg)
