"""`graphpatch view` as a command: Graphviz text, files, and what it refuses."""

import json
from pathlib import Path
from typing import Any

from pages import GRAPHPATCH, run


def parsed(text: str) -> list[Any]:
    import pydot

    graphs = pydot.graph_from_dot_data(text)
    assert graphs, text
    return graphs


def labels(graph: Any) -> dict:
    """Every box's tooltip, the path of its node, by its name in the text."""
    found = {node.get_name(): node.get("tooltip").strip('"') for node in graph.get_nodes() if node.get("tooltip")}
    for inner in graph.get_subgraphs():
        found.update(labels(inner))
    return found


def test_dot_of_a_scope(encoder: Path) -> None:
    text = run(GRAPHPATCH, "view", encoder, "bert.encoder.layer_0", "--dot").stdout
    (graph,) = parsed(text)
    paths = labels(graph)
    edges: list[tuple[str, str]] = [
        (paths.get(edge.get_source(), "?"), paths.get(edge.get_destination(), "?")) for edge in graph.get_edges()
    ]
    own = "bert.encoder.layer_0.attention.self"
    assert (f"{own}.transpose", f"{own}.matmul") in edges
    assert (f"{own}.output", "bert.encoder.layer_0.attention.output_1.argument_1") in edges
    assert any(inner.get("label").strip('"') == "attention" for inner in graph.get_subgraphs())
    (flat,) = parsed(run(GRAPHPATCH, "view", encoder, "bert.encoder.layer_0", "--dot", "--depth", 0).stdout)
    paths = labels(flat)
    edges = [
        (paths[edge.get_source()], paths[edge.get_destination()])
        for edge in flat.get_edges()
        if edge.get_source() in paths
    ]
    assert ("bert.encoder.layer_0.attention", "bert.encoder.layer_0.intermediate") in edges and not flat.get_subgraphs()


def test_dot_of_awkward_names(tmp_path: Path) -> None:
    evil = 'a"b\\ \n{}[];->\t#'
    nodes = [
        {"name": "x", "kind": "input"},
        {"name": "y", "kind": "op", "target": evil, "value": {"other": evil}, "args": [{"node": f"x|{evil}"}]},
    ]
    file = tmp_path / "evil.json"
    file.write_text(
        json.dumps(
            {
                "format": 1,
                "graphs": [{"name": evil, "runs": 1, "root": {"name": "<root>", "kind": "scope", "children": nodes}}],
            }
        )
    )
    (graph,) = parsed(run(GRAPHPATCH, "view", file, "--dot").stdout)
    assert sorted(labels(graph).values()) == ["x", "y"] and len(graph.get_edges()) == 1


def test_files_are_whole_or_untouched(encoder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    old = "<!doctype html>old"
    page.write_text(old)
    bad = tmp_path / "bad.json"
    bad.write_text('{"format": 1, "graphs": [')
    refused = run(GRAPHPATCH, "view", bad, "-o", page, code=2)
    assert "bad.json" in refused.stderr and page.read_text() == old
    bad.write_text('{"format": 99, "graphs": []}')
    assert "format 99" in run(GRAPHPATCH, "view", bad, "-o", page, code=2).stderr
    run(GRAPHPATCH, "view", encoder, "-o", page)
    assert page.read_text() != old
    assert (
        page.read_text().startswith("<!doctype html>")
        and [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []
    )


def test_what_is_refused(encoder: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert "nearest" in run(GRAPHPATCH, "view", encoder, "bert.encoder.layer_9", "-o", out, code=2).stderr
    assert "only a scope" in run(GRAPHPATCH, "view", encoder, "input_ids", "--dot", code=2).stderr
    assert "absent" in run(GRAPHPATCH, "view", encoder, "-o", tmp_path / "absent/page.html", code=2).stderr
    assert "safetensors" in run(GRAPHPATCH, "view", encoder, "--values", encoder, "-o", out, code=2).stderr
    other = tmp_path / "other.json"
    other.write_text(
        json.dumps({"format": 1, "graphs": [{"name": "N", "runs": 1, "root": {"name": "<root>", "kind": "scope"}}]})
    )
    refused = run(GRAPHPATCH, "view", other, "--values", folder / "values.safetensors", "-o", out, code=2)
    assert "none of its keys" in refused.stderr and not out.exists()


def test_sweeps_of_other_graphs(encoder: Path, sweep: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    table = json.loads(sweep.read_text())
    table["rows"][0]["node"] = "bert.absent.output"
    some = tmp_path / "some.json"
    some.write_text(json.dumps(table))
    made = run(GRAPHPATCH, "view", encoder, "--sweep", some, "-o", out)
    assert "bert.absent.output: no node of this graph; its cell is left out" in made.stderr and out.exists()
    out.unlink()
    table["rows"] = table["rows"][:1]
    some.write_text(json.dumps(table))
    refused = run(GRAPHPATCH, "view", encoder, "--sweep", some, "-o", out, code=2)
    assert "none of its nodes" in refused.stderr and not out.exists()
    assert "graphpatch sweep" in run(GRAPHPATCH, "view", encoder, "--sweep", encoder, "-o", out, code=2).stderr
    assert "--dot" in run(GRAPHPATCH, "view", encoder, "--sweep", sweep, "--dot", code=2).stderr
