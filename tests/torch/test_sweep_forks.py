"""`graphpatch sweep --fork`: what a program does before its first model runs is done once, and the table is the same."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import PROGRAMS, Result, graphpatch, save, wait_until
from sweep_model import INPUT, net

METRICS = ["--metric", "distance:output", "--metric", r"runs=regex:(\d+) run"]
# Counts how often the program is started, and writes before its model runs.
STARTED = 'echo start >>"$0"; echo begin; exec "$@"'


@pytest.fixture()
def program(tmp_path: Path) -> list[Any]:
    return [PROGRAMS / "runner", *save(net(), (INPUT,), tmp_path).args(), tmp_path / "out.pt"]


def sweep(program: list[Any], table: Path, *options: Any) -> Result:
    return graphpatch("sweep", *options, "-o", table, "--", *program)


def rows_of(table: Path) -> list[dict[str, str]]:
    with open(table, newline="", encoding="utf-8") as file:
        return [{name: cell for name, cell in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def test_the_table_is_the_same_and_the_program_starts_once(program: list[Any], tmp_path: Path) -> None:
    log = tmp_path / "log"
    counted = ["sh", "-c", STARTED, log, *program]
    options = ["--nodes", "blocks_[13].output", "--slice", "[:, {0..1}]", *METRICS, "--patch", "add:2"]
    sweep(counted, tmp_path / "whole.csv", *options).ok()
    assert log.read_text().count("start") == 1 + 4
    log.unlink()
    for jobs in (1, 2):
        table = tmp_path / f"forked{jobs}.csv"
        sweep(counted, table, *options, "--fork", "--jobs", jobs).ok()
        assert rows_of(table) == rows_of(tmp_path / "whole.csv") and len(rows_of(table)) == 4
        assert log.read_text().count("start") == 1
        log.unlink()


def test_what_is_written_before_belongs_to_every_run(program: list[Any], tmp_path: Path) -> None:
    early = ["sh", "-c", 'echo "score 7"; exec "$@"', "-", *program]
    options = ["--nodes", "blocks_[01].output", "--metric", r"score=regex:score (\d)", *METRICS]
    sweep(early, tmp_path / "t.csv", *options, "--fork").ok()
    assert [(row["score"], row["runs"]) for row in rows_of(tmp_path / "t.csv")] == [("7", "1")] * 2


def test_values_of_another_run_and_patches_of_every_run(program: list[Any], tmp_path: Path) -> None:
    kept, tables = tmp_path / "clean.safetensors", [tmp_path / "whole.csv", tmp_path / "forked.csv"]
    probes = [part for block in range(4) for part in ("--probe", f"blocks_{block}.output")]
    graphpatch("run", *probes, "--save", kept, "--", *program).ok()
    options = ["--always", "blocks_0.up.output=add:2", "--patch", f"replace:@{kept}#{{}}", *METRICS]
    for table, fork in zip(tables, ([], ["--fork"]), strict=True):
        sweep(program, table, *options, "--nodes", "blocks_[02].output", "--slice", "[{0,1}, 2:5]", *fork).ok()
    assert rows_of(tables[1]) == rows_of(tables[0]) and len(rows_of(tables[0])) == 4


def test_what_fails_is_the_same_row(program: list[Any], tmp_path: Path) -> None:
    """A patch that does not fit makes the forked program end as the whole one does, and the others go on."""
    tables = [tmp_path / "whole.csv", tmp_path / "forked.csv"]
    for table, fork in zip(tables, ([], ["--fork"]), strict=True):
        options = ["--nodes", "blocks_0.{up.,}output", "--slice", "[:, 9]", "--metric", "distance:output"]
        assert sweep(program, table, *options, *fork).code == 3
    assert rows_of(tables[1]) == rows_of(tables[0])
    assert [bool(row["failed"]) for row in rows_of(tables[0])] == [False, True]


def test_operations_of_a_program_without_modules(tmp_path: Path) -> None:
    """The first model runs where --run-at says that a run begins; what is loaded before is not listed."""
    tables = [tmp_path / "whole.csv", tmp_path / "forked.csv"]
    program = [PROGRAMS / "flat", "load", tmp_path / "out.pt", "2"]
    for table, fork in zip(tables, ([], ["--fork"]), strict=True):
        options = ["--run-at", "embedding", "--nodes", "tanh*", "--metric", "distance:softmax", *fork]
        sweep(program, table, *options).ok()
    assert rows_of(tables[1]) == rows_of(tables[0]) and len(rows_of(tables[0])) == 2


def test_programs_that_cannot_be_forked_are_refused(program: list[Any], tmp_path: Path) -> None:
    options = ["--nodes", "blocks_0.output", *METRICS[:2], "--fork"]
    table = tmp_path / "t.csv"
    model, inputs = program[1:3]
    script = f"import torch\ntorch.jit.load({str(model)!r})(*torch.load({str(inputs)!r}))\n"
    refused: list[tuple[list[Any], str]] = [
        ([sys.executable, "-c", script], "the program cannot be forked: it is a Python program"),
        ([*program, "--threads", "2"], "threads where its first model runs"),
        (["sh", "-c", '"$@" | cat', "-", *program], "goes through a pipe"),
        (["sh", "-c", "echo no >&2; exit 3"], "the program ended with code 3 before a model ran in it: no"),
        (["true"], "the program ended with code 0 before a model ran in it"),
    ]
    for command, why in refused:
        found = sweep(command, table, *options)
        assert found.code == 2 and why in found.stderr and "Traceback" not in found.stderr, (command, found.stderr)
        assert not table.exists()


def test_nothing_is_left_of_it(program: list[Any], tmp_path: Path) -> None:
    """The waiting program and its forks end with the sweep, also where one hangs."""
    script = tmp_path / "waits.sh"
    script.write_text('exec "$@"\n')
    sweep(["sh", script, *program], tmp_path / "t.csv", "--nodes", "blocks_0.output", *METRICS, "--fork").ok()
    wait_until(lambda: not running(program[1]), "all processes of the program end")


def running(model: Path) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(model) in line]
