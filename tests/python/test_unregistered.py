"""Modules that are called in a run and are not registered below the root's module, as a plain object holds them."""

from __future__ import annotations

import gc
import weakref

import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph, ZeroPatch


class Holder:
    """A plain object, not a module, that holds modules."""

    def __init__(self) -> None:
        self.block = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
        self.linear = nn.Linear(3, 3)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.holder = Holder()
        self.Linear = nn.Linear(3, 3)  # the name that the unregistered Linear would get

    def forward(self, x: Tensor) -> Tensor:
        return self.holder.linear(nn.ReLU()(self.holder.block(x))) + self.Linear(x)


X = torch.linspace(-1.0, 1.0, 6).view(2, 3)


def test_their_parameters_are_nodes_of_their_scope() -> None:
    pg = PatchableGraph(Net(), X)
    assert [str(node) for node in pg.graph.Linear] == [
        "Linear.input",
        "Linear.weight",
        "Linear.bias",
        "Linear.linear",
        "Linear.output",
    ]
    assert {"weight", "bias", "running_mean", "running_var"} <= set(dir(pg.graph.Sequential.sub_1))
    assert [str(node) for node in pg.graph] == ["x", "Sequential", "ReLU", "Linear", "Linear_1", "add", "output"]


def test_they_are_patched_in_every_run() -> None:
    net = Net()
    bare = net(X)
    pg = PatchableGraph(net, X)
    inner, own = net.holder.linear, net.Linear
    for _ in range(2):
        with pg.patch({"Linear.weight": ZeroPatch()}, on_missing="raise"):
            for _ in range(2):
                assert torch.equal(pg(X), inner.bias.expand(2, 3) + own(X))
        with pg.patch({"Linear_1.weight": ZeroPatch(), "Linear_1.bias": ZeroPatch()}, on_missing="raise"):
            assert torch.allclose(pg(X), bare - own(X))
        with pg.patch({"Sequential.sub_0.bias": AddPatch(value=1.0)}, on_missing="raise"):
            block = net.holder.block
            expected = inner(torch.relu(block[1](block[0](X) + 1))) + own(X)
            assert torch.allclose(pg(X), expected)
        assert torch.equal(pg(X), bare)


def test_modules_that_are_not_registered_are_not_kept_alive() -> None:
    net = Net()
    pg = PatchableGraph(net, X)
    gone = weakref.ref(net.holder.linear)
    net.holder = Holder()
    gc.collect()
    assert gone() is None
    bare = net(X)
    pg.record(X)
    with pg.patch({"Linear.weight": ZeroPatch()}, on_missing="raise"):
        assert torch.equal(pg(X), net.holder.linear.bias.expand(2, 3) + net.Linear(X))
    assert torch.equal(pg(X), bare)


def test_one_that_is_made_anew_in_every_run_costs_no_memory() -> None:
    class Makes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.Linear(3, 3)(x)

    pg = PatchableGraph(Makes(), X)
    for _ in range(20):
        pg.record(X)
    assert len(pg._recorder.root.foreign) <= 2
