"""`graphpatch run --trace`: the Trace Event Format, which Perfetto and Chrome read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import GRAPHPATCH, Result, run_process


@pytest.fixture
def events(tmp_path: Path, run_net: Callable[..., Result]) -> list[dict[str, Any]]:
    file = tmp_path / "trace.json"
    done = run_net(
        "run",
        "--trace",
        file,
        "--patch",
        "blocks_0.fc.output[0]=zero",
        "--probe",
        "output",
        "--save",
        tmp_path / "kept.safetensors",
    )
    assert f"wrote {file}" in done.stderr
    trace = json.loads(file.read_text())
    assert set(trace) == {"traceEvents", "displayTimeUnit"}
    return trace["traceEvents"]


def within(inner: dict[str, Any], outer: dict[str, Any]) -> bool:
    end = outer["ts"] + outer["dur"] + 0.001  # microseconds, as a float
    return (
        inner["tid"] == outer["tid"] and outer["ts"] - 0.001 <= inner["ts"] and inner["ts"] + inner.get("dur", 0) <= end
    )


def test_every_event_is_as_the_format_has_it(events: list[dict[str, Any]]) -> None:
    for event in events:
        assert isinstance(event["name"], str) and isinstance(event["pid"], int)
        if event["ph"] == "M":
            assert event["name"] == "process_name" and event["args"]["name"].startswith("python")
            continue
        assert isinstance(event["tid"], int) and event["ts"] >= 0 and event["args"]["path"] is not None
        assert event["ph"] in "Xi"
        assert (event["dur"] >= 0) if event["ph"] == "X" else (event["s"] == "t")
    slices = [event for event in events if event["ph"] != "M"]
    assert [e["ts"] for e in slices] == sorted(e["ts"] for e in slices)


def test_runs_hold_scopes_and_scopes_hold_operations(events: list[dict[str, Any]]) -> None:
    def of(category: str) -> list[dict[str, Any]]:
        return [event for event in events if event.get("cat") == category]

    runs, scopes, operations = of("run"), of("scope"), of("operation")
    assert len(runs) == 3 and len({run["tid"] for run in runs}) == 2
    expected = ["blocks_0", "blocks_0.fc", "blocks_1", "blocks_1.fc"]
    assert sorted(scope["args"]["path"] for scope in scopes) == sorted(expected * 3)
    paths = [f"blocks_{i}.{name}" for i in (0, 1) for name in ("fc.linear", "split", "cat")] + ["add", "add_1"]
    assert sorted(operation["args"]["path"] for operation in operations) == sorted(paths * 3)
    for scope in scopes:
        assert sum(within(scope, run) for run in runs) == 1
    for operation in operations:
        path = operation["args"]["path"]
        around = [scope for scope in scopes if path.rpartition(".")[0] == scope["args"]["path"]]
        if "." in path:
            assert sum(within(operation, scope) for scope in around) == 1, path
    assert {o["args"]["schema"] for o in operations if o["name"] == "linear"} == {"aten::linear"}


def test_patches_are_instants_in_their_scopes(events: list[dict[str, Any]]) -> None:
    instants = [event for event in events if event["ph"] == "i"]
    zeros = [event for event in instants if event["name"] == "blocks_0.fc.output[0]=zero"]
    assert len(zeros) == 3 and {zero["args"]["path"] for zero in zeros} == {"blocks_0.fc.output"}
    runs = [event for event in events if event.get("cat") == "run"]
    assert all(sum(within(instant, run) for run in runs) == 1 for instant in instants)
    assert len([event for event in instants if event["args"]["path"] == "output"]) == 3


def test_a_trace_changes_nothing_else(tmp_path: Path, run_net: Callable[..., Result]) -> None:
    bare = run_net("run")
    assert run_net("run", "--trace", tmp_path / "t.json").stdout == bare.stdout
    (tmp_path / "mine.txt").write_text("mine")
    refused = run_process([GRAPHPATCH, "run", "--trace", tmp_path / "mine.txt", "true"])
    assert refused.code == 2 and (tmp_path / "mine.txt").read_text() == "mine"
    nothing = run_process([GRAPHPATCH, "run", "--trace", tmp_path / "none.json", "true"])
    assert nothing.code != 0 and "no model ran" in nothing.stderr and not (tmp_path / "none.json").exists()
