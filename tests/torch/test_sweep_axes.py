"""`graphpatch sweep --slice '[:, {0..7}]'`: one run for each node and place, measured as PyTorch computes it."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from support import PROGRAMS, Result, graphpatch, save
from sweep_model import INPUT, net

METRIC = ["--metric", "distance:output"]


@pytest.fixture()
def program(tmp_path: Path) -> list[Any]:
    return [PROGRAMS / "runner", *save(net(), (INPUT,), tmp_path).args(), tmp_path / "out.pt"]


def sweep(program: list[Any], table: Path, *options: Any) -> Result:
    return graphpatch("sweep", *options, "-o", table, "--", *program)


def rows_of(table: Path) -> dict[tuple[str, str], dict[str, str]]:
    with open(table, newline="", encoding="utf-8") as file:
        return {(row["node"], row["place"]): row for row in csv.DictReader(file)}


def test_each_place_is_a_run(program: list[Any], tmp_path: Path) -> None:
    table, other = tmp_path / "t.csv", tmp_path / "t.json"
    picture = ["--heat-map", tmp_path / "t.svg", "-o", other]
    nodes = ["--nodes", "blocks_[01].output", "--patch", "add:2"]
    result = sweep(program, table, *nodes, "--slice", "[:, {0..2}]", *METRIC, *picture).ok()
    rows = rows_of(table)
    assert list(rows) == [(f"blocks_{block}.output", str(place)) for block in range(2) for place in range(3)]
    for (node, place), row in rows.items():
        model = net()
        with torch.no_grad():
            bare = model(INPUT)
            block = model.blocks[int(node[7])]
            one = torch.nn.functional.one_hot(torch.tensor(int(place)), 8)
            block.register_forward_hook(lambda _module, _inputs, output, one=one: output + 2 * one)
            expected = float((model(INPUT) - bare).double().norm())
        assert float(row["distance:output"]) == pytest.approx(expected, rel=1e-5)
    lines = result.stdout.splitlines()
    assert lines[1].split() == ["0", "1", "2"]
    assert [line.split()[0] for line in lines[2:]] == ["blocks_0.output", "blocks_1.output"]
    assert [row["place"] for row in json.loads(other.read_text())["rows"]] == ["0", "1", "2"] * 2
    assert "blocks_1.output {2}: " in (tmp_path / "t.svg").read_text()
    graphpatch("run", "--graph", tmp_path / "g.json", "--", *program).ok()
    graphpatch("view", tmp_path / "g.json", "--sweep", other, "-o", tmp_path / "g.html").ok()


def test_values_of_nodes_are_sliced_likewise(program: list[Any], tmp_path: Path) -> None:
    kept = tmp_path / "clean.safetensors"
    probes = [part for block in range(4) for part in ("--probe", f"blocks_{block}.output")]
    graphpatch("run", *probes, "--save", kept, "--", *program).ok()
    always = ["--always", "blocks_0.up.output=add:2"]
    put_back = ["--patch", f"replace:@{kept}#{{}}", "--nodes", "blocks_*.output"]
    sweep(program, tmp_path / "t.csv", *always, *put_back, "--slice", "[{0,1}, {}]".replace("{}", "2:5"), *METRIC).ok()
    rows = rows_of(tmp_path / "t.csv")
    assert len(rows) == 8
    clean: list[torch.Tensor] = []
    model = net()
    with torch.no_grad():
        hooks = [block.register_forward_hook(lambda _m, _i, output: clean.append(output)) for block in model.blocks]
        model(INPUT)
        for hook in hooks:
            hook.remove()
        model.blocks[0].up.register_forward_hook(lambda _module, _inputs, output: output + 2)
        corrupted = model(INPUT)
        for (node, place), row in rows.items():
            number, at = int(node[7]), int(place)

            def restore(_m: Any, _i: Any, output: torch.Tensor, number: int = number, at: int = at) -> torch.Tensor:
                output = output.clone()
                output[at, 2:5] = clean[number][at, 2:5]
                return output

            with model.blocks[number].register_forward_hook(restore):
                expected = float((model(INPUT) - corrupted).double().norm())
            assert float(row["distance:output"]) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_places_that_do_not_fit_are_rows_that_say_so(program: list[Any], tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    result = sweep(program, table, "--nodes", "head.output", "--slice", "[:, {2..3}]", *METRIC)
    rows = rows_of(table)
    assert result.code == 3 and not rows["head.output", "2"]["failed"]
    assert rows["head.output", "3"]["failed"].startswith("head.output[:, 3]=zero failed: ")
    for bad in ("[:, {0..2}, {0..2}]", "[:, {}]", "[:, {3..1}]", "[:, {0..2]"):
        refused = sweep(program, table, "--nodes", "head.output", "--slice", bad, *METRIC)
        assert refused.code == 2 and bad in refused.stderr, refused.stderr


def test_a_failing_bare_run_shows_its_last_lines(tmp_path: Path) -> None:
    code = "import sys\nprint('loading', file=sys.stderr)\nraise SystemExit('no such model')"
    result = sweep([sys.executable, "-c", code], tmp_path / "t.csv", "--nodes", "x", *METRIC)
    assert result.code == 2 and "the bare run: it ended with code 1: no such model" in result.stderr
    assert "its last lines on stderr:\n  loading\n  no such model" in result.stderr
    result = sweep(["sh", "-c", "echo one; echo two; exit 4"], tmp_path / "t.csv", "--nodes", "x", *METRIC)
    assert "it ended with code 4\nits last lines on stdout:\n  one\n  two" in result.stderr
