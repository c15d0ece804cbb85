"""Patterns in all places that take a path, and searching nodes by their properties."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, NodePath, PatchableGraph, ProbePatch, ZeroPatch


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.Linear(4, 4)
        self.mlp = nn.Linear(4, 4)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        weights = self.attn(hidden).softmax(-1)
        return hidden + self.mlp(weights), weights


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.h = nn.ModuleList(Block() for _ in range(12))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        for block in self.h:
            x, weights = block(x)
        return {"logits": self.head(x), "a*b": weights}


X = torch.randn(2, 5, 4)


@pytest.fixture
def pg() -> PatchableGraph:
    return PatchableGraph(Net(), X)


def paths(nodes: list[NodePath]) -> list[str]:
    return [str(node) for node in nodes]


def test_a_pattern_means_all_tensors_that_it_fits(pg: PatchableGraph) -> None:
    with pg.patch({"h_*.mlp.output": ZeroPatch()}) as patched:
        logits = pg(X)["logits"]
    assert torch.equal(logits, pg.module.head(X))
    assert [*patched.counts] == [f"h_{number}.mlp.output" for number in range(12)]


@pytest.mark.parametrize(
    ("pattern", "blocks"),
    [("h_?.mlp.output", range(10)), ("h_1[01].mlp.output", (10, 11)), ("h_{2,7}.mlp.output", (2, 7))],
)
def test_parts_of_a_pattern(pg: PatchableGraph, pattern: str, blocks: list[int]) -> None:
    with pg.patch({pattern: AddPatch(value=1.0)}):
        patched = pg(X)["logits"]
    hidden = X
    for number, block in enumerate(pg.module.h):
        hidden = block(hidden)[0] + (1.0 if number in blocks else 0.0)
    assert torch.allclose(patched, pg.module.head(hidden), atol=1e-6)


def test_patterns_reach_into_containers(pg: PatchableGraph) -> None:
    with pg.patch({"h_0.output|*": ZeroPatch(), "output|{logits,a\\*b}": (probe := ProbePatch())}) as patched:
        pg(X)
    assert {"h_0.output|sub_0", "h_0.output|sub_1", "output|logits", "output|a*b"} == {*patched.counts}
    assert probe.activation is not None


def test_a_path_is_itself_though_it_looks_like_a_pattern(pg: PatchableGraph) -> None:
    with pg.patch({"output|a*b": ZeroPatch()}) as patched:
        assert not pg(X)["a*b"].any()
    assert [*patched.counts] == ["output|a*b"]


def test_one_that_fits_nothing_is_a_key_error_with_the_other_bad_paths(pg: PatchableGraph) -> None:
    with pytest.raises(KeyError) as why:
        pg.patch({"mlp.*": ZeroPatch(), "h_*": ZeroPatch(), "a[": ZeroPatch(), "nothing": ZeroPatch()})
    assert "'mlp.*' matches no tensor of the graph; '**.mlp.*' does" in str(why.value)
    assert "'h_*' matches no tensor of the graph; 'h_*.output|*' does" in str(why.value)
    assert 'pattern of nodes "a["' in str(why.value) and "nothing: `<root>` has no node" in str(why.value)


def test_finding_nodes(pg: PatchableGraph) -> None:
    graph = pg.graph
    softmaxes = [f"h_{number}.softmax" for number in range(12)]
    assert paths(graph.find(op="softmax")) == paths(graph.find(op=torch.softmax)) == softmaxes
    assert paths(graph.find(op="aten::softmax.int", under="h_3")) == ["h_3.softmax"]
    assert paths(graph.h_3.find(op="softmax")) == ["h_3.softmax"]
    assert paths(graph.find(op="softmax", under=graph.h_3)) == ["h_3.softmax"]
    assert paths(graph.find(op="linear", under="h_[45].mlp")) == ["h_4.mlp.linear", "h_5.mlp.linear"]
    linears = graph.find(module=nn.Linear)
    assert len(linears) == 25 and paths(linears) == paths(graph.find(module="Linear"))
    assert paths(graph.find(module="Linear", under="h_9")) == ["h_9.attn", "h_9.mlp"]
    ends = ["head.output", "output|logits"]
    for shape in ((None, 5, 3), (2, ..., 3), "...,5,3"):
        assert paths(graph.find("{**.output,output|*}", shape=shape)) == ends
    assert paths(graph.find(shape=(3,))) == ["head.bias"]
    assert graph.find("h_0.nothing") == graph.find(op="nothing") == []
    for bad in ({"shape": "x"}, {"pattern": "a["}):
        with pytest.raises(ValueError):
            graph.find(**bad)


def test_a_size_that_differed_is_found_by_each(pg: PatchableGraph) -> None:
    pg.record(torch.randn(2, 9, 4))
    for shape in ((2, 5, 3), (2, 7, 3), (2, range(6, 20), 3)):
        assert "head.output" in paths(pg.graph.find(shape=shape))
    assert "head.output" not in paths(pg.graph.find(shape=(2, range(10, 20), 3)))


def test_a_node_is_a_mapping_of_its_children(pg: PatchableGraph) -> None:
    node = pg.graph.h_0
    assert node.keys() == ["hidden", "attn", "softmax", "mlp", "add", "output"]
    assert [str(child) for child in node.values()] == [f"h_0.{name}" for name in node.keys()]
    assert dict(node.items())["mlp"] == node.mlp and len(node) == 6
    assert "mlp.weight" in node and "mlp" in node and "nothing" not in node and 3 not in node
    assert node.mlp.weight in node and pg.graph.h_1 not in node and node in pg.graph
    assert node.get("mlp.weight") == node.mlp.weight and node.get("nothing") is None and node.get("x", 3) == 3
    assert node.mlp.to_path() == node.mlp._path == "h_0.mlp"
    assert "h_0.mlp.weight" in pg.graph._ipython_key_completions_()
    assert node._ipython_key_completions_()[: len(node)] == node.keys()  # and aliases
