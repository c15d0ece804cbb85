"""`graphpatch sweep`: measured values are those of PyTorch, a sweep can be interrupted, failures are rows or errors."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from support import (
    ENVIRONMENT,
    GRAPHPATCH,
    PROGRAMS,
    ROOT,
    TIMEOUT,
    Result,
    Saved,
    graphpatch,
    run_process,
    save,
    wait_until,
)
from sweep_model import INPUT, Net, net


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return save(net(), (INPUT,), tmp_path_factory.mktemp("net"))


@pytest.fixture()
def program(saved: Saved, tmp_path: Path) -> list[Any]:
    return [PROGRAMS / "runner", *saved.args(), tmp_path / "out.pt"]


def sweep(program: list[Any], table: Path, *options: Any) -> Result:
    return graphpatch("sweep", *options, "-o", table, "--", *program)


def rows_of(table: Path) -> dict[str, dict[str, str]]:
    with open(table, newline="", encoding="utf-8") as file:
        return {row["node"]: row for row in csv.DictReader(file)}


def distance(module: Callable[[Net], nn.Module], change: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """How far the output is from the bare one if a module's output is changed, by a forward hook."""
    model = net()
    with torch.no_grad():
        bare = model(INPUT)
        module(model).register_forward_hook(lambda _module, _inputs, output: change(output.clone()))
        return float((model(INPUT) - bare).double().norm())


def test_distances_are_those_of_pytorch(program: list[Any], tmp_path: Path) -> None:
    result = sweep(
        program,
        tmp_path / "t.csv",
        "-o",
        tmp_path / "t.json",
        "--heat-map",
        tmp_path / "t.svg",
        "--nodes",
        "blocks_*.output",
        "--nodes",
        "blocks_*.up.output",
        "--patch",
        "add:0.5",
        "--slice",
        "[..., ::2]",
        "--metric",
        "distance:output",
        "--metric",
        "inner=distance:blocks_1.output",
    ).ok()

    def change(value: torch.Tensor) -> torch.Tensor:
        value[..., ::2] += 0.5
        return value

    rows = rows_of(tmp_path / "t.csv")
    # Rows are in the order of the graph, not of the patterns.
    assert list(rows) == [f"blocks_{i}.{name}" for i in range(4) for name in ("up.output", "output")]
    for i in range(4):
        of_block = distance(lambda model, i=i: model.blocks[i], change)
        of_up = distance(lambda model, i=i: model.blocks[i].up, change)
        assert float(rows[f"blocks_{i}.output"]["distance:output"]) == pytest.approx(of_block, rel=1e-5)
        assert float(rows[f"blocks_{i}.up.output"]["distance:output"]) == pytest.approx(of_up, rel=1e-5)
    assert float(rows["blocks_0.output"]["inner"]) > 0 and float(rows["blocks_2.output"]["inner"]) == 0
    # The measured value is the patched one: each of the 8 elements (2 rows of 4) differs by 0.5.
    assert float(rows["blocks_1.output"]["inner"]) == pytest.approx(0.5 * 8**0.5, rel=1e-5)
    assert not any(row["failed"] for row in rows.values())

    table = json.loads((tmp_path / "t.json").read_text())
    assert [row["node"] for row in table["rows"]] == list(rows)
    assert [str(row["values"][0]) for row in table["rows"]] == [row["distance:output"] for row in rows.values()]
    assert table["settings"]["command"] == [str(part) for part in program]

    # The maps on stdout: a heading, columns, and a line for each kind of node.
    maps = result.stdout.split("\n\n")
    assert len(maps) == 2 and maps[0].startswith("distance:output, 0 in the bare run\n") and "\x1b" not in result.stdout
    for text in maps:
        head, *lines = text.splitlines()[1:]
        assert head.split() == ["0", "1", "2", "3"]
        assert [line.split()[0] for line in lines] == ["blocks_*.up.output", "blocks_*.output"]
    largest = max(rows.values(), key=lambda row: float(row["distance:output"]))
    assert f"█ {float(largest['distance:output']):#.3g}" in " ".join(maps[0].split())
    elements = ElementTree.parse(tmp_path / "t.svg").iter()
    titles = [element.text for element in elements if element.tag.endswith("}title")]
    assert titles == [
        f"{row['node']}: {row[name]}"
        for name in ("distance:output", "inner")
        for row in sorted(rows.values(), key=lambda row: ("up" not in row["node"], row["node"]))
    ]
    assert not list(tmp_path.glob("*.journal"))


SCRIPT = """\
import sys

import torch
sys.path.insert(0, sys.argv[1])
from sweep_model import INPUT, net

with torch.no_grad():
    model = net()
    for factor in (0, 1):
        print(f"score={model(factor * INPUT).abs().sum().double():.9f}.")
"""


def test_numbers_that_a_python_program_prints(tmp_path: Path) -> None:
    """The last match of the expression counts. `--runs` limits the patch to some calls of the model."""
    (tmp_path / "script.py").write_text(SCRIPT)
    program = [sys.executable, tmp_path / "script.py", ROOT / "tests/helpers"]
    options = [
        "--nodes",
        "blocks_[01].output",
        "--metric",
        r"score=regex:^score=(.*)\.$",
        "--metric",
        "mean-distance:output",
        "--jobs",
        1,
    ]
    sweep(program, tmp_path / "t.csv", *options, "--runs", 1).ok()
    rows = rows_of(tmp_path / "t.csv")
    with torch.no_grad():
        bare = float(net()(INPUT).abs().sum())
    for i in range(2):
        model = net()
        model.blocks[i].register_forward_hook(lambda _module, _inputs, output: output * 0)
        with torch.no_grad():
            expected = float(model(INPUT).abs().sum())
        row = rows[f"blocks_{i}.output"]
        assert float(row["score"]) == pytest.approx(expected, rel=1e-5)
        assert float(row["score - bare"]) == pytest.approx(expected - bare, rel=1e-3, abs=1e-5)
        # The first of the two runs is not patched, so the mean distance is half of that of the second.
        of_both = distance(lambda model, i=i: model.blocks[i], torch.zeros_like)
        assert float(row["mean-distance:output"]) == pytest.approx(of_both / 2, rel=1e-5)


def test_values_of_another_run(saved: Saved, program: list[Any], tmp_path: Path) -> None:
    """Causal tracing: corrupted in each run, and the clean value put back at one node after the other."""
    kept = tmp_path / "clean.safetensors"
    nodes = [f"blocks_{i}.output" for i in range(4)]
    probes = [part for node in [*nodes, "output"] for part in ("--probe", node)]
    graphpatch("run", *probes, "--save", kept, "--graph", tmp_path / "g.json", "--", *program).ok()
    corrupt = ["--always", "blocks_0.up.output=add:2"]
    put_back = ["--patch", f"replace:@{kept}#{{}}", "--against", tmp_path / "g.json"]
    sweep(
        program,
        tmp_path / "t.csv",
        *corrupt,
        *put_back,
        "--nodes",
        "blocks_*.output",
        "--nodes",
        "output",
        "--metric",
        "distance:output",
    ).ok()
    rows = {node: float(row["distance:output"]) for node, row in rows_of(tmp_path / "t.csv").items()}
    model = net()
    with torch.no_grad():
        clean = model(INPUT)
        model.blocks[0].up.register_forward_hook(lambda _module, _inputs, output: output + 2)
        corrupted = model(INPUT)
    whole = float((corrupted - clean).double().norm())
    # All of the corruption passes the first block, so that clean values there or at the end restore the output.
    assert rows["output"] == pytest.approx(whole, rel=1e-5) and rows["blocks_0.output"] == pytest.approx(
        whole, rel=1e-4
    )
    assert 0 < rows["blocks_3.output"] < whole

    missing = sweep(
        program, tmp_path / "t.csv", *corrupt, *put_back, "--nodes", "head.*", "--metric", "distance:output"
    )
    assert missing.code == 2 and "head.input: " in missing.stderr and "clean.safetensors" in missing.stderr


def test_what_fails_is_a_row(program: list[Any], tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    result = sweep(
        program,
        table,
        "--nodes",
        "blocks_0.{up.,}output",
        "--nodes",
        "head.{bias,output}",
        "--slice",
        "[:, 9]",
        "--metric",
        "distance:output",
    )
    assert result.code == 3
    rows = rows_of(table)
    good = [node for node, row in rows.items() if not row["failed"]]
    assert good == ["blocks_0.up.output"] and float(rows[good[0]]["distance:output"]) > 0
    for node in ("blocks_0.output", "head.output"):
        assert rows[node]["failed"].startswith(f"{node}[:, 9]=zero failed: ") and rows[node]["distance:output"] == ""
        assert f"graphpatch: {node}: {node}[:, 9]=zero failed: " in result.stderr
    assert "failed" in result.stdout
    # With --on-error skip the program goes on, but the row has still failed.
    options = ["--nodes", "head.output", "--slice", "[:, 9]", "--metric", "distance:output"]
    result = sweep(program, table, *options, "--nodes", "blocks_0.up.output", "--on-error", "skip")
    assert result.code == 3 and "head.output[:, 9]=zero failed: " in result.stderr
    # Where it fits nowhere, nothing is measured.
    table.unlink()
    result = sweep(program, table, *options)
    assert (
        result.code == 2 and "--patch zero: it fits at no node: head.output: slice [:, 9] does not fit" in result.stderr
    )
    assert not table.exists()


def test_programs_that_end_badly_or_never(program: list[Any], tmp_path: Path) -> None:
    """The patched program may crash or hang; the bare one may not."""
    script, table = tmp_path / "picky.sh", tmp_path / "t.csv"
    begin = time.monotonic()
    graphpatch("run", "--graph", tmp_path / "g.json", "--", *program).ok()
    limit = max(10, math.ceil(20 * (time.monotonic() - begin)))  # seconds for one run: more on a busy machine
    (tmp_path / "out.pt").rename(tmp_path / "bare.pt")
    script.write_text(
        'otherwise=$1; shift; "$@" || exit\ncmp -s "${@: -1}" "${0%/*}/bare.pt" || eval "$otherwise"\necho score 1\n'
    )
    options = ["--metric", r"regex:score (\d+)", "--nodes", "head.output", "--against", tmp_path / "g.json"]
    result = sweep(["bash", script, "echo too far >&2; exit 1", *program], table, *options)
    assert result.code == 3 and rows_of(table)["head.output"]["failed"] == "it ended with code 1: too far", (
        result.stderr
    )
    result = sweep(["bash", script, "sleep 600", *program], table, *options, "--timeout", limit)
    assert result.code == 3 and rows_of(table)["head.output"]["failed"] == f"it took longer than {limit} s", (
        result.stderr
    )
    wait_until(lambda: nothing_runs(script), "the program that took too long ends")

    result = sweep(["bash", "-c", "echo nothing >&2; exit 7"], table, *options)
    assert result.code == 2 and result.stderr == "graphpatch: the bare run: it ended with code 7: nothing\n"
    result = sweep(["bash", "-c", "kill -SEGV $$"], table, *options)
    assert result.code == 2 and "it ended with code 139" in result.stderr


def nothing_runs(script: Path) -> bool:
    """Whether no process has the path in its command line."""
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return not [line for line in listed.splitlines() if str(script) in line]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_goes_on_where_it_was_interrupted(program: list[Any], tmp_path: Path, how: signal.Signals) -> None:
    script, log, table = tmp_path / "slow.sh", tmp_path / "log", tmp_path / "t.csv"
    # The bare run and five others run; later ones wait as long as the file `held` exists.
    held = tmp_path / "held"
    script.write_text(
        f'echo run >>{log}\nwhile [ -e {held} ] && [ "$(wc -l <{log})" -gt 6 ]; do sleep 0.05; done\nexec "$@"\n'
    )
    held.touch()
    options = ["--nodes", "blocks_*.**.output", "--metric", "distance:output"]
    command = [GRAPHPATCH, "sweep", *options, "--jobs", 2, "-o", table, "--", "bash", script, *program]
    journal = tmp_path / "t.csv.journal"
    with subprocess.Popen(
        [str(part) for part in command],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            wait_until(
                lambda: journal.exists() and journal.read_bytes().count(b"\n") >= 4, "three nodes in the journal"
            )
        finally:
            process.send_signal(how)
        _, stderr = process.communicate(timeout=TIMEOUT)
    # Whatever signal killed the sweep, its programs must end, too.
    wait_until(lambda: nothing_runs(script), "the programs end")
    held.unlink()
    measured = journal.read_bytes().count(b"\n") - 1
    assert 3 <= measured < 12 and not table.exists()
    if how == signal.SIGKILL:
        assert process.returncode == -9
    else:
        assert process.returncode == 128 + how
        assert f"interrupted: {measured} of 12 nodes are measured; the same command goes on" in stderr.decode()

    other = run_process([*command[:2], "--patch", "add:1", *command[2:]])
    assert (
        other.code == 2
        and "an interrupted sweep with other settings left it" in other.stderr
        and "--restart" in other.stderr
    )
    log.unlink()
    again = run_process(command).ok()
    assert f"{measured} of 12 nodes were measured before" in again.stderr
    assert log.read_text().count("run") == 12 - measured + 1, "the bare run, and what was left"
    assert not journal.exists()
    whole = tmp_path / "whole.csv"
    sweep(program, whole, *options).ok()

    def measurements(file: Path) -> dict[str, str]:
        return {node: row["distance:output"] for node, row in rows_of(file).items()}

    assert measurements(table) == measurements(whole) and len(measurements(table)) == 12


def test_two_at_a_time_share_the_cores(program: list[Any], tmp_path: Path) -> None:
    """OMP_NUM_THREADS is set if several programs run at once, unless the user has set it or a program runs alone."""
    script = 'echo "threads ${OMP_NUM_THREADS:-0}"; exec "$@"'
    cores = len(os.sched_getaffinity(0))

    def threads(jobs: int, given: str | None) -> float:
        environment = {name: value for name, value in ENVIRONMENT.items() if name != "OMP_NUM_THREADS"}
        environment.update({"OMP_NUM_THREADS": given} if given else {})
        command = [
            GRAPHPATCH,
            "sweep",
            "--nodes",
            "head.output",
            "--metric",
            r"n=regex:threads (\d+)",
            "--jobs",
            jobs,
            "-o",
            tmp_path / "t.csv",
            "--",
            "bash",
            "-c",
            script,
            "-",
            *program,
        ]
        subprocess.run([str(part) for part in command], env=environment, check=True, capture_output=True)
        return float(rows_of(tmp_path / "t.csv")["head.output"]["n"])

    assert threads(1, None) == 0 and threads(2, None) == max(1, cores // 2)
    assert threads(2, "7") == 7


WRONG = [
    (["--nodes", "blocks_*"], "'blocks_*' matches no tensor of the graph; 'blocks_*.output' does"),
    (["--nodes", "up.output"], "; '**.up.output' does"),
    (["--nodes", "mlp_*"], "`graphpatch run --tree` shows the names"),
    (["--nodes", "a["], 'pattern of nodes "a[": '),
    (["--metric", "distance:blocks_0.ouput"], "blocks_0.output"),
    (["--metric", "loss"], "expected regex:PATTERN, distance:PATH or mean-distance:PATH"),
    (["--metric", "regex:loss (.*)"], "the program's output has no match of loss (.*)"),
    (["--metric", "distance:output"], "there are two of that name"),
    (["--metric", "x=distance:output"], "output is measured twice"),
    (["--patch", "double"], "double"),
    (["--patch", "probe"], "it changes nothing"),
    (["--patch", "add:@absent.npy"], "absent.npy: "),
    (["--slice", "[a]"], 'slice "[a]"'),
    (["--always", "absent=zero"], "absent"),
    (["--always", "head=probe"], "it changes nothing"),
    (["--runs", "1..0"], "1..0"),
    (["--timeout", "0"], "expected a positive number of seconds"),
    (["--jobs", "0"], "0 is not in"),
    (["-o", "table.txt"], "a table ends in .csv, .json or .parquet"),
    (["-o", "absent/table.csv"], "absent/table.csv: cannot be written"),
    (["--heat-map", "absent/map.svg"], "absent/map.svg: cannot be written"),
    (["--against", "absent.json"], "absent.json: "),
]


@pytest.mark.parametrize("options, why", WRONG, ids=[" ".join(options) for options, _ in WRONG])
def test_what_is_wrong_is_said(program: list[Any], tmp_path: Path, options: list[str], why: str) -> None:
    given = ["--nodes", "head.output", "--metric", "distance:output"]
    result = run_process([GRAPHPATCH, "sweep", *given, *options, "-o", tmp_path / "t.csv", "--", *program])
    assert result.code == 2 and why in result.stderr, result.stderr
    assert result.stderr.startswith("graphpatch: ") and not list(tmp_path.glob("t.csv*"))


def test_a_table_without_a_name(program: list[Any], tmp_path: Path) -> None:
    """The table is sweep.csv in the current folder. A file of that name is not overwritten."""
    command = [GRAPHPATCH, "sweep", "--nodes", "head.output", "--metric", "distance:output", "--", *program]
    assert run_process(command, cwd=tmp_path).code == 0
    assert list(rows_of(tmp_path / "sweep.csv")) == ["head.output"]
    (tmp_path / "sweep.csv").write_text("mine\n", encoding="utf-8")
    again = run_process(command, cwd=tmp_path)
    assert again.code == 2 and "sweep.csv is there already" in again.stderr, again.stderr
    assert (tmp_path / "sweep.csv").read_text(encoding="utf-8") == "mine\n"


def test_programs_without_a_model(tmp_path: Path) -> None:
    result = sweep(["echo", "score 1"], tmp_path / "t.csv", "--nodes", "**", "--metric", r"regex:score (\d)")
    assert result.code == 2 and result.stderr == "graphpatch: no libtorch model ran: there are no nodes to sweep over\n"
    result = sweep([tmp_path / "absent"], tmp_path / "t.csv", "--nodes", "**", "--metric", "distance:output")
    assert result.code == 2 and "no such program" in result.stderr
