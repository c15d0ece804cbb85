"""Looking around in the graph: nodes, completion, shapes and code."""

from __future__ import annotations

import inspect
import linecache
import rlcompleter
from collections import namedtuple

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import NodePath, PatchableGraph, ZeroPatch
from nets import Block, Net, TupleOutputModule


@pytest.fixture
def graph() -> NodePath:
    return PatchableGraph(TupleOutputModule(), torch.randn(3, 2)).graph


def test_nodes_are_attributes_with_completion(graph: NodePath) -> None:
    assert [name for name in dir(graph) if not name.startswith("_")] == ["add", "linear", "linear_1", "output", "x"]
    assert {"_code", "_shape"} <= set(dir(graph.linear.weight))
    assert dir(graph.output) == ["_code", "_shape", "sub_0", "sub_1"]
    paths = [str(node) for node in (graph.linear_1.output, graph.output.sub_0)]
    assert paths == ["linear_1.output", "output|sub_0"]
    assert repr(graph.linear).splitlines()[:2] == ["linear: Graph(5)", "├─input: Tensor(3, 2)"]
    assert repr(graph.output.sub_0) == "sub_0: Tensor(3, 3)"
    assert graph.linear_0 == graph.linear and hash(graph.linear_0) == hash(graph.linear)
    assert graph["linear_1.output"] == graph.linear_1.output and graph["output|sub_1"] == graph.output.sub_1
    assert [str(node) for node in graph.linear][0] == "linear.input" and len(graph) == 5
    for wrong in ("nope", "add_0_0", "_ipython_display_", "__wrapped__"):
        assert not hasattr(graph, wrong)
    with pytest.raises(AttributeError, match="it has x, linear, add, linear_1, output"):
        graph.nope
    with pytest.raises(KeyError):
        graph["linear.nope"]


def test_completion_at_a_prompt() -> None:
    pg = PatchableGraph(TupleOutputModule(), torch.randn(3, 2))
    completer = rlcompleter.Completer({"pg": pg})
    assert completer.attr_matches("pg.graph.lin") == ["pg.graph.linear", "pg.graph.linear_1"]
    assert {"pg.graph.linear.weight", "pg.graph.linear.output"} <= set(completer.attr_matches("pg.graph.linear."))
    assert completer.attr_matches("pg.graph.output.s") == ["pg.graph.output.sub_0", "pg.graph.output.sub_1"]
    assert completer.attr_matches("pg.state_d") == ["pg.state_dict("]


def test_keys_with_characters_of_their_own() -> None:
    class Keys(nn.Module):
        def forward(self, x: Tensor) -> dict[object, Tensor]:
            return {"a.b": x + 1, "c|d": x + 2, "e f": x + 3, 7: x + 4}

    pg = PatchableGraph(Keys(), x := torch.randn(2))
    for node in pg.graph.output:
        assert pg.graph[str(node)] == node and repr(node).endswith("Tensor(2)")
        with pg.patch({node: ZeroPatch()}), pg.patch({str(node): ZeroPatch()}):
            assert sum(not value.any() for value in pg(x).values()) == 1


def test_keys_that_are_hard_to_write() -> None:
    class Keys(nn.Module):
        def forward(self, x: Tensor) -> dict[str, object]:
            return {"line\nbreak": x[:1], "e f": {"g.h": x[:2]}, "": x[:3], "_hidden": x[:4]}

    output = PatchableGraph(Keys(), torch.randn(5)).graph.output
    # A path needs a name, so the empty key has one.
    assert output._shape == {"line\nbreak": (1,), "e f": {"g.h": (2,)}, "''": (3,), "_hidden": (4,)}
    assert {*dir(output)} == {"line\nbreak", "e f", "''", "_hidden", "_code", "_shape"} and len(output) == 4
    assert output["e f"]._shape == {"g.h": (2,)} and output["e f.g\\.h"] == output["e f"]["g\\.h"]
    assert getattr(output, "line\nbreak")._shape == (1,) and output._hidden._shape == (4,)
    for wrong in ("", "e f.g", "e f|g", "a b", "_other"):
        assert not hasattr(output, wrong)


def test_paths_of_graphs_are_those_of_patches() -> None:
    pg = PatchableGraph(TupleOutputModule(), torch.randn(3, 2))
    for path in ("linear_0.output", "linear_1.bias", "output|sub_0", "add"):
        with pg.patch({path: ZeroPatch()}), pg.patch({pg.graph[path]: ZeroPatch()}):
            pass
    for path in ("add_0", "linear_1_0.bias", "output|sub_2", "a..b", "linear.", "x.x"):
        with pytest.raises(KeyError):
            pg.patch({path: ZeroPatch()})
        with pytest.raises(KeyError) as error:
            pg.graph[path]
        assert "\\n" not in str(error.value) and not str(error.value).startswith(("'", '"'))


def test_values_of_several_kinds() -> None:
    class Changing(nn.Module):
        def forward(self, x: Tensor, way: int = 0) -> object:
            return [None, 3, x, x[:1, 0], (x, 2), (x[:1], 2.5, x), {"a": x}][way]

    x = torch.randn(2, 3)

    def shape(*ways: int) -> object:
        pg = PatchableGraph(Changing(), x, way=ways[0])
        for way in ways[1:]:
            pg.record(x, way=way)
        return pg.graph.output._shape

    assert shape(0) is None and shape(1) is None and shape(0, 1) is None
    assert shape(0, 2) == (2, 3) == shape(2, 0, 3) and shape(3, 2) == (1,)
    assert shape(4) == ((2, 3), None) == shape(1, 4)
    assert shape(4, 5) == ((range(1, 3), 3), None, (2, 3))
    assert shape(1, 6, 4) == {"a": (2, 3), "sub_0": (2, 3), "sub_1": None}


def test_shapes_merge_over_runs_as_ranges() -> None:
    pg = PatchableGraph(Net(), torch.randn(5, 4))
    assert pg.graph.blocks_0.output._shape == torch.Size([5, 4]) and isinstance(pg.graph.x._shape, torch.Size)
    with pg.recording():
        pg(torch.randn(1, 4))
        pg(torch.randn(128, 4))
        assert pg.graph.x._shape == (range(1, 129), 4)
    assert repr(pg.graph.x) == "x: Tensor(1..128, 4)"
    assert pg.graph.blocks_0.up.weight._shape == (6, 4)
    pg(torch.randn(500, 4))
    assert pg.graph.output._shape == (range(1, 129), 4)
    assert pg.graph.blocks_1.up._shape["bias"] == (6,) and list(pg.graph.blocks_1.up._shape)[-1] == "output"


def test_shapes_of_containers_and_plain_values() -> None:
    Pair = namedtuple("Pair", "a b")

    class Mixed(nn.Module):
        def forward(self, x: Tensor, n: int = 3) -> dict[str, object]:
            return {"pair": Pair(x, [x[0], n]), "none": None, "scalar": x.sum()}

    graph = PatchableGraph(Mixed(), torch.randn(2, 3)).graph
    assert graph.output._shape == {"pair": ((2, 3), [(3,), None]), "none": None, "scalar": ()}
    assert graph.n._shape is None and repr(graph.output.scalar) == "scalar: Tensor()"


def test_what_later_runs_add() -> None:
    class Branches(nn.Module):
        def forward(self, x: Tensor, flip: bool = False) -> Tensor:
            return x.neg() if flip else x.exp()

    pg = PatchableGraph(Branches(), x := torch.randn(3))
    assert "neg" not in dir(pg.graph)
    pg(x, flip=True)
    assert "neg" not in dir(pg.graph)
    pg.record(x, flip=True)
    assert {"neg", "exp"} <= set(dir(pg.graph))
    with pg.patch({"neg": ZeroPatch()}):
        assert not pg(x, flip=True).any() and pg(x).any()


def test_code_of_a_scope_reads_as_a_function(graph: NodePath) -> None:
    assert str(graph._code).strip().splitlines() == [
        "def forward(self, x):",
        "    linear = self.linear(x)",
        "    add = aten.add.Tensor(x, 1)",
        "    linear_1 = self.linear(add)",
        "    return (linear, linear_1)",
    ]
    assert repr(graph._code) == str(graph._code)
    code = str(graph.linear._code)
    assert code.startswith("Calling context:") and "Compiled code:\ndef forward(self, input):" in code
    assert "    linear = aten.linear(input, weight, bias)" in code


def test_code_of_a_leaf_is_the_users_line() -> None:
    graph = PatchableGraph(Net(), torch.randn(3, 4)).graph
    first = inspect.getsourcelines(Block.forward)[1]
    code, file = str(graph.blocks_1.sigmoid._code), inspect.getsourcefile(Block)
    line = next(number for number in range(first, first + 5) if "torch.sigmoid" in linecache.getline(str(file), number))
    assert code.strip().splitlines()[-2:] == [
        f'File "{file}", line {line}, in forward',
        f"    {linecache.getline(str(file), line).strip()}",
    ]
    frames = code.replace(str(file), "<file>")  # the name of the checkout must not matter
    assert "torch/nn" not in frames and "libgraphpatch" not in frames
    assert "block(x)" in str(graph.blocks_1._code)
