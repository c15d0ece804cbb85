"""Models whose weights accelerate keeps elsewhere and loads when a module is called: names, values and patches are
those of the plain model, and no patch changes the stored weights."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

import pytest
import torch
from accelerate import cpu_offload, dispatch_model
from accelerate.hooks import ModelHook, SequentialHook, add_hook_to_module
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph, ProbePatch, ZeroPatch

X = torch.linspace(-2, 2, 12).reshape(3, 4)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(4, 8), nn.Linear(8, 4), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Doubling(ModelHook):  # type: ignore[misc]
    """Changes the input, so that a call without this hook has another result."""

    def pre_forward(self, module: nn.Module, *args: object, **kwargs: object) -> tuple[object, object]:
        return (args[0] * 2, *args[1:]), kwargs  # type: ignore[operator]


def offloaded(net: nn.Module) -> nn.Module:
    return cpu_offload(net, execution_device=torch.device("cpu"))


def dispatched(net: nn.Module) -> nn.Module:
    return dispatch_model(net, {"blocks": "cpu", "head": "cpu"}, main_device="cpu", force_hooks=True)


def hooked(net: nn.Module) -> nn.Module:
    for module in list(net.modules()):
        add_hook_to_module(module, SequentialHook(ModelHook(), ModelHook()))
    return net


WAYS = [offloaded, dispatched, hooked]


def made(way: Callable[[nn.Module], nn.Module]) -> tuple[nn.Module, nn.Module]:
    """A model as it is alone, and the same with accelerate's hooks."""
    torch.manual_seed(0)
    bare = Net().eval()
    return bare, way(copy.deepcopy(bare))


def by_hook(net: nn.Module, path: str, change: Callable[[Tensor], Tensor]) -> Tensor:
    """What the model alone gives where a forward hook of PyTorch changes what the module at ``path`` returns."""
    handle = net.get_submodule(path).register_forward_hook(lambda _module, _inputs, output: change(output))
    try:
        return net(X)
    finally:
        handle.remove()


def tree(module: nn.Module) -> list[str]:
    """The tree without accelerate's own operations: it moves inputs and outputs by ``to``."""
    lines = repr(PatchableGraph(module, X).graph).splitlines()
    return [re.sub(r"Graph\(\d+\)", "Graph", line) for line in lines if not re.search(r"─to(_\d+)?: ", line)]


@pytest.mark.parametrize("way", [dispatched, hooked])
@torch.no_grad()
def test_the_graph_is_that_of_the_model_alone(way: Callable[[nn.Module], nn.Module]) -> None:
    bare, net = made(way)
    assert tree(net) == tree(bare)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", ["blocks.0", "blocks.0.up", "blocks.1.norm", "head"])
@torch.no_grad()
def test_outputs_are_patched_as_a_forward_hook_does(way: Callable[[nn.Module], nn.Module], path: str) -> None:
    bare, net = made(way)
    pg, node = PatchableGraph(net, X), path.replace("blocks.", "blocks_")
    probe = ProbePatch()
    with pg.patch({f"{node}.output": [probe, ZeroPatch(), AddPatch(value=1.5)]}, on_missing="raise"):
        assert torch.equal(pg(X), by_hook(bare, path, lambda output: output * 0 + 1.5))
    kept: list[Tensor] = []
    by_hook(bare, path, lambda output: kept.append(output.clone()) or output)
    assert torch.equal(probe.activation, kept[0])
    assert torch.equal(net(X), bare(X))


@pytest.mark.parametrize("way", [dispatched, hooked])
@pytest.mark.parametrize("name", ["blocks.0.up.bias", "head.weight", "blocks.1.norm.weight"])
@torch.no_grad()
def test_a_patch_of_a_parameter_leaves_the_model_as_it_is(way: Callable[[nn.Module], nn.Module], name: str) -> None:
    bare, net = made(way)
    pg, node = PatchableGraph(net, X), name.replace("blocks.", "blocks_")
    changed = copy.deepcopy(bare)
    changed.get_parameter(name).zero_()
    with pg.patch({node: ZeroPatch()}, on_missing="raise"):
        assert torch.equal(pg(X), changed(X))
    assert torch.equal(net(X), bare(X))
    assert torch.equal(pg(X), bare(X))


@torch.no_grad()
def test_parameters_that_are_brought_during_the_call_are_refused_and_the_note_says_why() -> None:
    bare, net = made(offloaded)
    pg = PatchableGraph(net, X)
    assert [note for note in pg.notes if "on the meta device" in note and "and 13 more" in note], pg.notes
    assert not PatchableGraph(bare, X).notes
    with pytest.raises(KeyError, match="has no node `bias`"):
        pg.patch({"blocks_0.up.bias": ZeroPatch()})
    expected = by_hook(bare, "blocks.0.up", lambda output: output * 0)
    with pg.patch({"blocks_0.up.linear": ZeroPatch()}, on_missing="raise"):
        assert torch.equal(pg(X), expected)
    assert torch.equal(net(X), bare(X))


@pytest.mark.parametrize(("first", "name"), [(0, "head.weight"), (3, "head.bias")])
@pytest.mark.parametrize("step", [0, 1, 2])
@torch.no_grad()
def test_parameters_that_are_brought_are_patched_where_they_are_moved(first: int, name: str, step: int) -> None:
    """Each is moved three times; the last result is the Parameter that the module takes."""
    bare, net = made(offloaded)
    pg = PatchableGraph(net, X)
    changed = copy.deepcopy(bare)
    changed.get_parameter(name).add_(1)
    node = f"to_{first + step}" if first + step else "to"
    with pg.patch({f"head.{node}": AddPatch(value=1.0)}, on_missing="raise"):
        assert torch.equal(pg(X), changed(X))
    assert torch.equal(net(X), bare(X))


@torch.no_grad()
def test_a_hook_that_changes_the_arguments_is_seen_behind() -> None:
    bare, _ = made(hooked)
    net = copy.deepcopy(bare)
    add_hook_to_module(net.head, Doubling())
    pg = PatchableGraph(net, X)
    value = net(X)
    assert torch.equal(pg(X), value)
    with pg.patch({"head.output": AddPatch(value=1.0)}, on_missing="raise"):
        assert torch.equal(pg(X), value + 1)
