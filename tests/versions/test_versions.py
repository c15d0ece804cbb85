"""With other versions of libtorch, the adapter compiles and loads, and finished programs are recorded and patched.

The same libtorch computes the expected results (by_hand.cpp). `make test-versions` fetches the versions and compiles
the programs; the first program of each also compiles the adapter.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models import TUPLE_OUTPUT_TREE
from support import GRAPHPATCH, ROOT, Result, nodes, run_process, same_bits, tree_in

Expected = list[tuple[str, Any]]


@dataclass
class Version:
    """The programs for one libtorch, and their results without graphpatch."""

    number: str
    programs: Path
    folder: Path
    script: Expected
    flat: Expected
    bare_script: Any
    bare_flat: Any

    def run(self, options: list[Any], program: str, *args: Any) -> tuple[Result, Any]:
        """Runs a program under `graphpatch run`. Returns how it ended and the file that it wrote."""
        out = self.folder / "out.pt"
        out.unlink(missing_ok=True)
        words = {
            "runner": [self.folder / "model.pt", self.folder / "inputs.pt", out, *args],
            "flat": ["ops", out, *args],
        }[program]
        before = [GRAPHPATCH, "run", *options, "--"] if options else []
        result = run_process([*before, self.programs / program, *words]).ok()
        return result, torch.load(out, weights_only=False)


def by_hand(programs: Path, folder: Path, *flat: Path) -> Expected:
    run_process([programs / "by_hand", folder, *flat]).ok()
    return list(torch.load(folder / "expected.pt", weights_only=False))


@pytest.fixture(scope="module", params=os.environ.get("VERSIONS", "").split())
def version(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Version:
    programs, folder = ROOT / f"build/torch-{request.param}", tmp_path_factory.mktemp("version")
    found = Version(request.param, programs, folder, by_hand(programs, folder), [], None, None)
    found.bare_script = found.run([], "runner")[1]
    found.bare_flat = found.run([], "flat")[1]
    found.flat = by_hand(programs, folder, folder / "out.pt")
    return found


def test_the_programs_are_of_that_version(version: Version) -> None:
    told = run_process([GRAPHPATCH, "doctor", "--", version.programs / "runner"]).stdout
    assert re.search(rf"\b{re.escape(version.number)}\b", told), told
    assert same_bits(version.bare_script[0][0][0], version.script[0][1]), "runner computes what by_hand computes"
    assert same_bits(version.bare_flat[2][0], version.flat[0][1]), "so does flat"


@pytest.mark.parametrize("mode", ["--grad", "--no-grad", "--inference-mode"])
def test_script_tree(version: Version, mode: str) -> None:
    result, written = version.run(["--tree"], "runner", mode, "--runs", 4)
    assert result.tree == TUPLE_OUTPUT_TREE
    assert all(same_bits(output, version.bare_script[0][0][0]) for output in written[0][0])


def test_script_patches(version: Version) -> None:
    seen = set()
    for patch, expected in version.script[1:]:
        options = ["--patch", patch, *(["--tree"] if patch.endswith("zero") else [])]
        _, (threads, weights, inputs) = version.run(options, "runner", "--runs", 3)
        assert all(same_bits(output, expected) for output in threads[0]), patch
        assert same_bits(weights, version.bare_script[1]) and same_bits(inputs, version.bare_script[2]), patch
        seen.add(same_bits(expected, version.script[0][1]))
    assert len(version.script) == 33 and seen == {False}


def test_script_probes(version: Version) -> None:
    kept = version.folder / "kept.safetensors"
    version.run(["--probe", "linear.output", "--record", "linear_1.linear", "--save", kept], "runner", "--runs", 2)
    values, (first, second) = load_file(kept), version.script[0][1]
    assert set(values) == {"linear.output", "linear_1.linear#0", "linear_1.linear#1"}
    assert same_bits(values["linear.output"], first)
    assert all(same_bits(values[f"linear_1.linear#{run}"], second) for run in range(2))


def test_flat_tree_and_patches(version: Version) -> None:
    result, written = version.run(["--tree"], "flat", 2)
    assert same_bits(written[2], (version.bare_flat[2][0],) * 2)
    names = [name for name, _ in nodes(tree_in(result.stderr))]
    assert names[-6:] == ["addmm", "relu", "addmm_1", "addmm_2", "relu_1", "addmm_3"]
    for patch, expected in version.flat[1:]:
        _, written = version.run(["--patch", patch], "flat", 2)
        assert same_bits(written[2][0], expected), patch
        assert same_bits(written[2][1], version.bare_flat[2][0]), "the second forward has other names"
    assert len(version.flat) == 13


def test_code_and_errors(version: Version) -> None:
    graph = version.folder / "graph.json"
    version.run(["--graph", graph], "runner")
    shown = run_process([GRAPHPATCH, "show", graph, "--code"]).ok().stdout
    assert "add = aten.add.Scalar(x, 1)" in shown and "linear = self.linear(x)" in shown
    out = version.folder / "refused.pt"
    program = [version.programs / "runner", version.folder / "model.pt", version.folder / "inputs.pt", out]
    refused = run_process([GRAPHPATCH, "run", "--on-error", "raise", "--patch", "add[7]=zero", "--", *program])
    assert refused.code == 1 and "cannot be applied at add" in refused.stderr and "(3, 2)" in refused.stderr, (
        refused.stderr
    )
    skipped = run_process([GRAPHPATCH, "run", "--on-error", "skip", "--patch", "add[7]=zero", "--", *program])
    assert skipped.code == 3 and same_bits(torch.load(out, weights_only=False)[0][0][0], version.script[0][1])
