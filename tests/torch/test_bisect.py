"""`graphpatch bisect` names the first value in which two programs part that should compute the same."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support import ENVIRONMENT, GRAPHPATCH, PROGRAMS, ROOT, Result, Saved, save, wait_until

PYTHON = [sys.executable, ROOT / "tests/programs/python/parting.py"]


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.up(x))
        return self.down(hidden).softmax(-1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Saved]:
    """The model in TorchScript: as it is, and with one element of one weight changed."""
    torch.manual_seed(0)
    model, x = Mlp().eval(), torch.rand(2, 4) + 1
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.down.weight[1, 2] += 0.5
    folder = tmp_path_factory.mktemp("bisect")
    made = {name: save(each, (x,), folder / name) for name, each in (("model", model), ("changed", changed))}
    return made.__getitem__


@pytest.fixture
def bisect(tmp_path: Path) -> Callable[..., Result]:
    """Runs the command. It must leave no file behind."""

    def run(one: list[Any], other: list[Any] | None, *options: Any, code: int) -> Result:
        temporary = tmp_path / "temporary"
        temporary.mkdir(exist_ok=True)
        programs = [*one, *([] if other is None else ["--against", "--", *other])]
        done = subprocess.run(
            [str(word) for word in (GRAPHPATCH, "bisect", *options, "--", *programs)],
            env={**ENVIRONMENT, "TMPDIR": str(temporary)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert [file.name for file in temporary.iterdir() if file.name.startswith("graphpatch-")] == []
        return Result(done.stdout, done.stderr, done.returncode)

    return run


def runner(saved: Saved, tmp_path: Path) -> list[Any]:
    return [PROGRAMS / "runner", *saved.args(), tmp_path / "out.pt"]


def test_a_changed_weight(saved: Callable[[str], Saved], bisect: Callable[..., Result], tmp_path: Path) -> None:
    programs = [runner(saved(name), tmp_path) for name in ("model", "changed")]
    done = bisect(*programs, code=1)
    first, one, other, *_ = done.stdout.splitlines()
    assert first.startswith("down.weight: 1 of 18 elements differ") and first.endswith("first at [1, 2]"), done.stdout
    assert "by up to 5.000e-1" in first and "Tensor(3, 6)" in one and "norm" in other and one != other
    assert "of the values agree, 5 do not" in done.stdout  # the weight, linear, softmax, and two outputs
    # The line of the source that computed it.
    computed = bisect(*programs, "--nodes", "**.linear", code=1)
    assert computed.stdout.startswith("down.linear: 2 of 6 elements differ"), computed.stdout
    assert "self.down(hidden).softmax(-1)" in computed.stdout or "F.linear" in computed.stdout, computed.stdout


def test_what_it_says_to_scripts(saved: Callable[[str], Saved], bisect: Callable[..., Result], tmp_path: Path) -> None:
    programs = [runner(saved(name), tmp_path) for name in ("model", "changed")]
    found = json.loads(bisect(*programs, "--json", code=1).stdout)
    assert found["first"]["key"] == "down.weight" and found["first"]["count"] == 1
    assert found["first"]["one"]["shape"] == [3, 6]
    keys = [each["key"] for each in found["differences"]]
    assert keys == ["down.weight", "down.linear", "down.output", "softmax", "output"]
    near = json.loads(bisect(*programs, "--json", "--tolerance", 10, code=0).stdout)
    assert "first" not in near and near["differences"] == [] and near["agree"] > 8


def test_the_same_program_twice(saved: Callable[[str], Saved], bisect: Callable[..., Result], tmp_path: Path) -> None:
    program = runner(saved("model"), tmp_path)
    done = bisect(program, ["env", "TOLD=1", *program], "--tolerance", 0, code=0)
    assert "of the values agree\n" in done.stdout and not done.stderr


def test_a_wrong_lowering_of_the_compiler(bisect: Callable[..., Result]) -> None:
    nodes = "{sigmoid,add,tanh,mul,*.linear,output}"  # without parameters each program runs once less
    done = bisect([*PYTHON, "eager"], [*PYTHON, "wrong"], "--nodes", nodes, code=1)
    assert done.stdout.startswith("tanh: 24 of 24 elements differ"), done.stdout + done.stderr
    assert "by up to 1.250e-1" in done.stdout and "torch.tanh(self.second(x)) * 3" in done.stdout
    assert "one by one" not in done.stderr


WRONG: dict[str, tuple[list[str], list[str], list[str] | None, str]] = {
    "no second program": ([], ["true"], None, "there is no second program: write -- PROGRAM"),
    "an empty second program": ([], ["true"], [], "no PROGRAM"),
    "no such program": ([], ["true"], ["./absent"], "./absent: no such program"),
    "no model": ([], ["true"], ["true"], "the first program: no libtorch model ran in it"),
    "a program that fails": ([], ["sh", "-c", "echo oh no >&2; exit 7"], ["true"], "ended with code 7"),
    "patches, which it has none of": (["--on-error", "skip"], ["true"], ["true"], "unexpected argument '--on-error'"),
    "a tolerance": (["--tolerance=-1"], ["true"], ["true"], "--tolerance: expected a number of at least 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_refused(bisect: Callable[..., Result], case: str) -> None:
    options, one, other, message = WRONG[case]
    done = bisect(one, other, *options, code=2)
    assert message in done.stderr and not done.stdout, done.stderr


def test_patterns_and_programs_without_common_values(
    saved: Callable[[str], Saved], bisect: Callable[..., Result], tmp_path: Path
) -> None:
    program = runner(saved("model"), tmp_path)
    assert "--nodes" in bisect(program, program, "--nodes", "upp.*", code=2).stderr
    assert "the second program: none of the values was computed in it" in bisect(program, ["true"], code=2).stderr


def test_a_signal_ends_it_and_its_program(tmp_path: Path) -> None:
    script = tmp_path / "slow.sh"
    script.write_text("#!/bin/sh\necho $$ > started\nsleep 600\n")
    script.chmod(0o700)
    command = [GRAPHPATCH, "bisect", "--", script, "--against", "--", script]
    child = subprocess.Popen(
        command, cwd=tmp_path, env={**ENVIRONMENT, "TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE
    )
    started = tmp_path / "started"
    wait_until(lambda: started.exists() and started.read_text().strip(), "the program has begun")
    program = int(started.read_text())
    child.send_signal(signal.SIGTERM)
    _, told = child.communicate(timeout=60)
    assert child.returncode == 128 + signal.SIGTERM and b"interrupted" in told
    assert not list(tmp_path.glob("graphpatch-*"))
    wait_until(lambda: not os.path.exists(f"/proc/{program}"), "the program has ended")
