"""PatchableGraph acts like its module, works beside other PatchableGraphs, and leaves the module unchanged."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, ExtractionOptions, PatchableGraph, ProbePatch, ReplacePatch, ZeroPatch, load_graph
from libgraphpatch._library import check, lib, made, text
from libgraphpatch._script import call_script
from models import TUPLE_OUTPUT_TREE
from nets import Calls, Net, TupleOutputModule, same


def script_tree(module: torch.jit.ScriptModule, *args: Any) -> str:
    """The tree that TorchScript's own calls give, through an attached session."""
    session = made(lib.gp_session_open)
    check(lib.gp_session_attach(session))
    try:
        check(lib.gp_session_record(session, True))
        call_script(module, args, {}, nn.Module.__call__)
        graphs = made(lib.gp_session_graphs, session)
        tree = text(lib.gp_graphs_tree, graphs, 0, None)
        lib.gp_graphs_free(graphs)
        return tree.rstrip("\n")
    finally:
        check(lib.gp_session_detach(session))
        lib.gp_session_close(session)


def test_the_tree_is_the_specs_and_that_of_torchscript() -> None:
    module, x = TupleOutputModule(), torch.randn(3, 2)
    tree = repr(PatchableGraph(module, x).graph)
    assert tree == TUPLE_OUTPUT_TREE.rstrip()
    assert tree == script_tree(torch.jit.script(module), x)


def test_the_text_of_a_node_is_its_path_and_that_of_the_root_the_tree() -> None:
    graph = PatchableGraph(nn.Sequential(nn.Linear(3, 3)), torch.ones(1, 3)).graph
    assert str(graph) == repr(graph) and str(graph).startswith("<root>: Graph(")
    assert str(graph.sub_0.linear) == f"{graph.sub_0.linear}" == "sub_0.linear"


def test_a_call_returns_what_the_module_returns() -> None:
    net, x = Net(), torch.randn(3, 4)
    pg = PatchableGraph(net, x)
    assert same(pg(x), net(x))
    with pg.patch({}):
        assert same(pg(x), net(x))


def test_options_of_the_package_graphpatch_are_taken() -> None:
    x = torch.randn(3, 4)
    assert len(PatchableGraph(Net(), ExtractionOptions(error_on_compilation_failure=True), x).graph) == 4


def test_attributes_and_type_checks_reach_the_module() -> None:
    net, x = Net(), torch.randn(3, 4)
    pg = PatchableGraph(net, x)
    assert isinstance(pg, Net) and isinstance(pg, nn.Module) and type(pg) is PatchableGraph
    assert pg.blocks is net.blocks and pg.module is net
    assert list(pg.state_dict()) == list(net.state_dict())
    assert pg.eval() is pg and not net.training and not net.blocks[0].training
    assert pg.train() is pg and net.training
    pg.extra = 3
    assert net.extra == 3
    del pg.extra
    assert not hasattr(net, "extra") and not hasattr(pg, "extra")
    assert {"blocks", "graph", "state_dict"} <= set(dir(pg))
    pg.load_state_dict({name: torch.zeros_like(value) for name, value in net.state_dict().items()})
    assert not net.blocks[0].up.weight.any()


@pytest.mark.parametrize("convert", [lambda pg: pg.double(), lambda pg: pg.to(torch.bfloat16), lambda pg: pg.half()])
def test_patches_hold_after_the_module_was_converted(convert: Any) -> None:
    net, x = Net(), torch.randn(3, 4)
    pg = PatchableGraph(net, x)
    assert convert(pg) is pg
    x = x.to(net.blocks[0].up.weight.dtype)
    bias = net.blocks[0].up.bias
    with pg.patch({"blocks_0.up.weight": ZeroPatch(), "blocks_0.up.output": (probe := ProbePatch())}):
        pg(x)
    assert same(probe.activation, bias.expand(3, 6))


def test_a_sequential_has_its_items() -> None:
    module, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(2, 4)
    pg = PatchableGraph(module, x)
    assert len(pg) == 2 and pg[1] is module[1] and list(pg) == list(module)
    with pytest.raises(TypeError):
        len(PatchableGraph(Net(), x))
    with pg.patch({"sub_0.output": ReplacePatch(value=-1.0)}):
        assert not pg(x).any()


def test_it_is_not_pickled_but_its_module_and_graph_are(tmp_path: Path) -> None:
    pg = PatchableGraph(Net(), x := torch.randn(3, 4))
    for refuse in (copy.copy, pickle.dumps):
        with pytest.raises(TypeError, match="save the module"):
            refuse(pg)
    with pytest.raises(TypeError, match="save_graph"):
        pickle.dumps(pg.graph)
    assert copy.deepcopy(pg.graph) == pg.graph
    pg.save_graph(tmp_path / "graph.json")
    assert repr(load_graph(tmp_path / "graph.json")) == repr(pg.graph)
    with pg.patch({"blocks_0.output": ZeroPatch()}):
        module = copy.deepcopy(pg.module)
        assert not same(module(x), pg(x))


def test_the_example_run_leaves_buffers_and_random_numbers_alone() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls = self.calls + 1
            return torch.nn.functional.dropout(self.norm(x), 0.5)

    module, x = Counting(), torch.randn(3, 4)
    calls = module.calls
    before, random = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    pg = PatchableGraph(module, x)
    assert module.calls is calls
    assert all(same(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    pg.record(x)
    assert module.calls == 1


def test_patches_of_one_never_touch_another() -> None:
    nets, x = [Net(), Net()], torch.randn(3, 4)
    bare = [net(x) for net in nets]
    a, b = (PatchableGraph(net, x) for net in nets)
    with a.patch({"blocks_0.output": ZeroPatch()}):
        assert same(b(x), bare[1]) and not same(a(x), bare[0])
        with b.patch({"output": ZeroPatch()}):
            assert not b(x).any() and a(x).any()
        assert same(b(x), bare[1]) and not same(a(x), bare[0])
    assert same(a(x), bare[0])


def test_two_of_one_module_have_patches_of_their_own() -> None:
    net, x = Net(), torch.randn(3, 4)
    bare, a = net(x), PatchableGraph(net, x)
    with a.patch({"blocks_0.output": AddPatch(value=1.0)}):
        patched = net.blocks[1](net.blocks[0](x) + 1)
        b = PatchableGraph(net, x)
        assert same(a(x), patched) and same(net(x), patched) and same(b(x), bare)
        with b.patch({"output": ZeroPatch()}):
            assert same(a(x), patched) and not b(x).any()
            assert not net(x).any()
        assert same(a(x), patched) and same(net(x), patched)
    assert same(net(x), bare)
    assert any("another PatchableGraph" in note for note in a.notes)


def test_one_inside_the_module_of_another() -> None:
    inner, x = Net(), torch.randn(3, 4)
    outer = Calls(inner)
    a, b = PatchableGraph(outer, x), PatchableGraph(inner, x)
    with b.patch({"blocks_0.output": ZeroPatch()}):
        expected = inner.blocks[1](torch.zeros(3, 4)) * 3
        assert same(a(x), expected)
        with a.patch({"inner.output": AddPatch(value=1.0), "add": (probe := ProbePatch())}):
            assert same(a(x), (inner.blocks[1](torch.zeros(3, 4)) + 1) * 3)
        assert same(probe.activation, x + 1)
        assert same(a(x), expected)


def test_a_patchable_graph_as_a_submodule() -> None:
    inner, x = Net(), torch.randn(3, 4)
    b = PatchableGraph(inner, x)
    outer = Calls(b)
    assert repr(PatchableGraph(outer, x).graph) == repr(PatchableGraph(Calls(inner), x).graph)
    with b.patch({"output": ZeroPatch()}):
        assert not outer(x).any()
    assert same(outer(x), inner(x + 1) * 3)


def test_what_cannot_be_looked_into_is_refused_as_the_root() -> None:
    x = torch.randn(3, 4)
    for module in (torch.jit.script(Net().blocks[0]), torch.jit.trace(Net(), x)):
        with pytest.raises(ValueError, match="TorchScript"):
            PatchableGraph(module, x)
    with pytest.raises(ValueError, match="torch.nn.Module, and function is none"):
        PatchableGraph(script_tree, x)  # type: ignore[arg-type]


def test_an_example_that_fails_says_why_and_leaves_nothing_behind() -> None:
    net = Net()
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        PatchableGraph(net, torch.randn(3, 5))
    x = torch.randn(3, 4)
    assert same(PatchableGraph(net, x)(x), net(x))
