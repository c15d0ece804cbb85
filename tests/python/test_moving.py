"""docs/moving.md: all snippets of a task come to the same numbers.

Ours and those of forward hooks run here. Those of the other libraries run in the interpreters that GRAPHPATCH_PEERS
names (separated by colons), each of which has one or more of them; without it there are no such tests. They were last
seen to pass with nnsight 0.8.1 and transformer-lens 4.3.0 (torch 2.11, transformers 5.23), and graphpatch 0.2.3 (torch
2.5.1, transformers 4.45.2).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from snippets import Snippets, blocks, given

PAGE = Path(__file__).resolve().parents[2] / "docs" / "moving.md"
TASKS = [
    "Read an activation",
    "Zero a head and a neuron",
    "Add a steering vector at one position",
    "Replace by the value of a clean run",
    "Patch inside a module, where no hook reaches",
    "Record over `generate()`",
    "Optimize a steering vector",
]
LIBRARIES = ["graphpatch", "nnsight", "transformer_lens"]
PEERS = LIBRARIES if os.environ.get("GRAPHPATCH_PEERS") else []


@pytest.fixture(scope="module")
def ours() -> Snippets:
    torch.manual_seed(0)
    return Snippets("ours", PAGE.read_text())


@pytest.fixture(scope="module")
def hooks(ours: Snippets) -> Snippets:
    return Snippets("hooks", PAGE.read_text(), given(ours.namespace))


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys() and found
    for name, value in found.items():
        if name == "activations":  # only the newest token of each step, as some libraries use no cache
            assert len(value) == len(wanted[name])
            value, wanted[name] = (torch.stack([step[:, -1] for step in steps]) for steps in (value, wanted[name]))
        torch.testing.assert_close(value, wanted[name], atol=2e-4, rtol=2e-4)


def test_every_task_has_a_snippet_for_everyone() -> None:
    tasks = [(heading, labels) for heading, labels, _ in blocks(PAGE.read_text()) if "setup" not in labels]
    found = [(heading, label) for heading, labels in tasks for label in labels]
    assert sorted(found) == sorted((task, library) for task in TASKS for library in ["ours", "hooks", *LIBRARIES])


@pytest.mark.parametrize("task", TASKS)
def test_ours_is_what_hooks_do(task: str, ours: Snippets, hooks: Snippets) -> None:
    same(ours.run(task), hooks.run(task))


@pytest.mark.parametrize("task", TASKS[1:5])
def test_ours_changes_the_result(task: str, ours: Snippets) -> None:
    """If the snippets changed nothing, their agreement would prove nothing."""
    names = ours.namespace
    plain = names["gpt2"](names["other_ids" if "clean run" in task else "ids"]).logits
    assert (ours.run(task)["logits"] - plain).abs().max() > 0.05


def test_the_optimized_vector_does_its_work(ours: Snippets) -> None:
    assert ours.run("Optimize a steering vector")["logits"][0, -1].argmax() == 7
    names = ours.namespace
    assert names["gpt2"](names["ids"]).logits[0, -1].argmax() != 7


def test_the_cache_is_used(ours: Snippets) -> None:
    assert [step.shape[1] for step in ours.run("Record over `generate()`")["activations"]] == [5, 1, 1, 1]


@pytest.fixture(scope="module")
def peer_results(ours: Snippets, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """peer_results(library): its results by task, from the first interpreter that has it."""
    done: dict[str, Any] = {}
    folder = tmp_path_factory.mktemp("peers")
    torch.save(given(ours.namespace), folder / "given.pt")

    def results(library: str) -> Any:
        for interpreter in filter(None, os.environ.get("GRAPHPATCH_PEERS", "").split(":")):
            if library in done:
                break
            script, out = Path(__file__).with_name("helpers") / "snippets.py", folder / f"{library}.pt"
            command = [interpreter, str(script), library, str(PAGE), str(folder / "given.pt"), str(out)]
            clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
            clean["HF_HUB_OFFLINE"] = "1"
            ran = subprocess.run(command, capture_output=True, text=True, timeout=600, env=clean)
            if ran.returncode != 77:
                assert ran.returncode == 0, ran.stderr
                done[library] = torch.load(out)
        if library not in done:
            pytest.fail(f"no interpreter in GRAPHPATCH_PEERS has {library}")
        return done[library]

    return results


if PEERS:

    @pytest.mark.parametrize("task", TASKS)
    @pytest.mark.parametrize("library", PEERS)
    def test_peers_come_to_the_same(library: str, task: str, ours: Snippets, peer_results: Any) -> None:
        same(peer_results(library)[task], ours.run(task))
