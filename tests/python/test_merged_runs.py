"""Runs that differ: their common graph claims of no run what that run did not do."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import MissingPatchWarning, PatchableGraph, ZeroPatch

X = torch.ones(1, 2)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Linear(2, 2)

    def forward(self, x: Tensor, way: str = "relu") -> Tensor:
        if way == "relu":
            y = torch.relu(x)
        elif way == "tanh":
            y = torch.tanh(x)
        else:
            return x
        y = self.block(y)
        return y + x


def lines(pg: PatchableGraph, path: str = "") -> list[str]:
    node = pg.graph[path] if path else pg.graph
    return [line.strip() for line in str(node._code).splitlines()]


@pytest.fixture
def pg() -> PatchableGraph:
    pg = PatchableGraph(Branches(), X)
    for way in ("tanh", "nothing", "relu", "tanh"):
        pg.record(X, way=way)
    return pg


def test_arguments_stand_beside_the_nodes_of_their_run(pg: PatchableGraph) -> None:
    code = lines(pg)
    block = code.index("block = self.block(relu)  # in some runs")
    assert code[block + 1] == "# or, in other runs: block = self.block(tanh)"
    assert {"relu = aten.relu(x)  # in some runs", "tanh = aten.tanh(x)  # in some runs"} <= set(code[:block])
    assert code[-2:] == ["return add", "# or, in other runs: return x"]
    # The runs with the block add its output in the same way, so that the line has no other version.
    assert "add = aten.add.Tensor(block, x)  # in some runs" in code


def test_a_call_is_told_from_every_place(pg: PatchableGraph) -> None:
    inside = lines(pg, "block")
    assert inside[-4:] == [
        "weight = self.weight",
        "bias = self.bias",
        "linear = aten.linear(input, weight, bias)",
        "return linear",
    ]


def test_what_every_run_does_is_marked_by_nothing() -> None:
    pg = PatchableGraph(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), X)
    once = str(pg.graph._code)
    for rows in (1, 2, 5):
        pg.record(torch.ones(rows, 2))
    assert str(pg.graph._code) == once and "runs" not in once


def test_operations_that_exist_only_without_gradients() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()
    x = torch.randn(1, 3, 4)
    pg = PatchableGraph(layer, x)
    pg.record(x)
    fast = "_transformer_encoder_layer_fwd"
    code = lines(pg)
    assert any(line.startswith(f"{fast} = aten.{fast}") and line.endswith("  # in some runs") for line in code)
    assert any(line.startswith("self_attn = self.self_attn(") and line.endswith("  # in some runs") for line in code)
    assert code[-2] == f"return {fast}" and code[-1].startswith("# or, in other runs: return ")
    with torch.no_grad(), pg.patch({fast: ZeroPatch()}):
        assert not pg(x).any()
    with pytest.warns(MissingPatchWarning, match=fast), pg.patch({fast: ZeroPatch()}):
        assert pg(x).any()


def test_inside_vmap_the_shape_is_that_of_one_example_and_says_so() -> None:
    class Mapped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.vmap(lambda row: row.sin())(x).exp()

    pg = PatchableGraph(Mapped(), torch.ones(3, 2))
    assert pg.graph.sin._shape == (2,) and pg.graph.exp._shape == (3, 2)
    with tempfile.TemporaryDirectory() as folder:
        pg.save_graph(f"{folder}/graph.json")
        (graph,) = json.loads(Path(f"{folder}/graph.json").read_text())["graphs"]
    layouts = {node["name"]: node["value"]["tensor"]["layout"] for node in graph["root"]["children"]}
    assert layouts["sin"] == "batched" and layouts["exp"] == "strided"
