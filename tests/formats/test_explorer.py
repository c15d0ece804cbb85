"""What `view --model-explorer` writes, read into the classes of the package ai-edge-model-explorer and run by its adapter."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dacite
import model_explorer
import pytest
from model_explorer import graph_builder, node_data_builder
from model_explorer.adapter_runner import AdapterRunner
from model_explorer.registered_extension import RegisteredExtension
from model_explorer.utils import convert_adapter_response
from safetensors.torch import load_file

from support import GRAPHPATCH, Result, run_process

STRICT = dacite.Config(strict=True)


class Written(model_explorer.Adapter):
    """An adapter whose models are the files that graphpatch writes."""

    metadata = model_explorer.AdapterMetadata(id="graphpatch", name="graphpatch", fileExts=["json"])

    def convert(self, model_path: str, settings: dict[str, Any]) -> model_explorer.ModelExplorerGraphs:
        graphs = json.loads(Path(model_path).read_text())["graphs"]
        return {"graphs": [dacite.from_dict(graph_builder.Graph, graph, STRICT) for graph in graphs]}


@pytest.fixture
def files(tmp_path: Path, run_net: Callable[..., Result]) -> Path:
    run_net(
        "run",
        "--graph",
        tmp_path / "g.json",
        "--probe",
        "blocks_0.output",
        "--probe",
        "output",
        "--save",
        tmp_path / "k.safetensors",
    )
    run_net("sweep", "--nodes", "blocks_*.fc.output", "--metric", "sum=regex:(\\S+)", "-o", tmp_path / "s.json", runs=1)
    options = ["--values", tmp_path / "k.safetensors", "--sweep", tmp_path / "s.json"]
    done = run_process(
        [GRAPHPATCH, "view", tmp_path / "g.json", *options, "--model-explorer", tmp_path / "e.json"]
    ).ok()
    assert "--node_data_paths=" in done.stderr
    return tmp_path


def test_the_adapter_gives_the_graph(files: Path) -> None:
    extension = RegisteredExtension(Written.metadata, "adapter", Written)
    command = {"cmdId": "convert", "modelPath": str(files / "e.json"), "settings": {}}
    response = AdapterRunner().run_adapter(extension, command)
    [graph] = response["graphs"]
    written = json.loads((files / "e.json").read_text())
    assert written["label"] == "g.json"
    [converted] = convert_adapter_response(response)["graphs"]
    assert {node["id"] for node in converted["nodes"]} == {node["id"] for node in written["graphs"][0]["nodes"]}
    nodes = {node.id: node for node in graph.nodes}
    assert len(nodes) == len(graph.nodes)
    assert nodes["blocks_0.fc.linear"].namespace == "blocks_0/fc" and nodes["add"].namespace == ""
    assert set(graph.groupNodeAttributes or {}) == {"blocks_0", "blocks_0/fc", "blocks_1", "blocks_1/fc"}
    edges = {(edge.sourceNodeId, node.id) for node in graph.nodes for edge in node.incomingEdges}
    assert all(source in nodes for source, _ in edges)
    assert {
        ("x", "blocks_0.x"),
        ("blocks_0.fc.weight", "blocks_0.fc.linear"),
        ("blocks_0.output", "add"),
        ("blocks_0.fc.output", "blocks_0.split"),
        ("add", "blocks_1.x"),
        ("add_1", "output"),
    } <= edges
    [cat] = [node for node in graph.nodes if node.id == "blocks_0.cat"]
    assert [edge.sourceNodeOutputId for edge in cat.incomingEdges] == ["sub_1", "sub_0"]
    assert [item.id for item in nodes["blocks_0.split"].outputsMetadata] == ["sub_0", "sub_1"]


def test_overlays_are_node_data(files: Path) -> None:
    config = model_explorer.config()
    [graph] = json.loads((files / "e.json").read_text())["graphs"]
    nodes = {node["id"] for node in graph["nodes"]}

    def results(name: str) -> dict[str, float]:
        config.add_node_data_from_path(str(files / name))
        [(identity, data)] = json.loads((files / name).read_text()).items()
        assert identity == graph["id"]
        read = dacite.from_dict(node_data_builder.GraphNodeData, data, STRICT)
        assert set(read.results) <= nodes and [item.stop for item in read.gradient] == [0, 1]
        return {key: result.value for key, result in read.results.items()}

    values = load_file(files / "k.safetensors")
    assert results("e.norm.json") == pytest.approx({key: float(value.norm()) for key, value in values.items()})
    rows = json.loads((files / "s.json").read_text())["rows"]
    assert results("e.sum.json") == pytest.approx({row["node"]: row["values"][0] for row in rows})
