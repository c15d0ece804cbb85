"""Failures of the library raise nothing in a program under `graphpatch run`: a note says so, and the value stays."""

import subprocess
import sys
from typing import Any

import pytest

from support import ENVIRONMENT, GRAPHPATCH, ROOT, TIMEOUT

PROGRAM = ROOT / "tests/programs/python/hostile.py"


def run(*arguments: Any, under: Any = None) -> Any:
    command = [*([] if under is None else [GRAPHPATCH, "run", *under, "--"]), sys.executable, PROGRAM, *arguments]
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=TIMEOUT, env=ENVIRONMENT
    )


def test_the_program_does_what_it_does_without_us() -> None:
    bare = run()
    assert bare.returncode == 0, bare.stderr
    seen = run(under=["--tree"])
    assert (seen.returncode, seen.stdout) == (0, bare.stdout), seen.stderr
    assert "# Sequential.forward" in seen.stderr and "# Unhashable.forward" in seen.stderr
    # Not even a dict that raises while it is iterated: its elements are read without its methods.
    assert "thing: dict(1)" in seen.stderr and "libgraphpatch failed" not in seen.stderr


MISFITS = ["output[9, 9, 9]=zero", "x[9]=zero", "output|sub_7=zero", "linear.weight[5]=zero"]


def test_a_patch_that_does_not_fit_is_noted() -> None:
    bare = run()
    result = run(under=[part for patch in MISFITS for part in ("--patch", patch)])
    assert (result.returncode, result.stdout) == (3, bare.stdout), result.stderr
    assert "patch x[9]=zero failed" in result.stderr and "out of bounds" in result.stderr


@pytest.mark.parametrize("name", ["raising", "constructor", "keys"])
def test_raising_can_be_asked_for(name: str) -> None:
    result = run(name, under=["--patch", "x[9]=zero", "--on-error", "raise"])
    assert result.returncode == 1 and "x[9]=zero" in result.stderr and not result.stdout


def test_what_can_be_patched_is() -> None:
    result = run("constructor", "keys", under=["--patch", "output|sub_0=zero", "--patch", "add=add:1"])
    assert result.stdout.splitlines() == ["keys [[3.0, 3.0]]", "constructor [[0.0, 0.0]]"], result.stderr
