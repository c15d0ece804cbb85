"""What the library says of an adapter that it builds goes to the stderr that the program began with, and nowhere else. It neither ends
the program nor holds it up where nobody reads there, or no more fits."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hosting import GRAPHPATCH, Left, compare, run

COMPILER = """#!/bin/sh
case "$*" in *--version*) echo "stand-in 1.0"; exit 0;; *-fsyntax-only*) exit 0;; esac
echo asked > "$0.asked"
exit 1
"""


@pytest.fixture
def building(tmp_path: Path, model: dict[str, str]) -> dict[str, str]:
    """The library tries to build an adapter when libtorch is loaded, and says so; the compiler fails."""
    compiler = tmp_path / "compiler"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    late = {"HOST_LATE": model["HOST_MODEL"], "HOST_MODEL_FILE": model["HOST_MODEL_FILE"]}
    return {"GRAPHPATCH_CACHE": str(tmp_path / "cache"), "CXX": str(compiler), **late}


def test_what_is_built_is_not_told_in_the_programs_file(
    programs: Path, building: dict[str, str], tmp_path: Path
) -> None:
    command = [str(programs / "files"), "stderr_is_its_own_before_libtorch_comes"]
    under = compare(command, tmp_path, building, "--tree")
    assert under.files["own"].endswith(repr(b"mine\nmine\n")) and b"ran untouched" in under.stderr, under
    assert Path(f"{building['CXX']}.asked").exists()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reads, writes = os.pipe()
    os.set_inheritable(writes, True)
    yield reads, writes
    os.close(reads)
    os.close(writes)


def started_by(script: str, programs: Path, folder: Path, environment: dict[str, str], *pass_fds: int) -> Left:
    """A program that prints nothing on stderr itself, under the command, which has another stderr."""
    command = [str(GRAPHPATCH), "run", "--tree", "--", "bash", "-c", script, "bash", str(programs / "ends"), "returns"]
    return run(command, folder, {**environment, "HOST_MODEL": environment["HOST_LATE"]}, pass_fds=pass_fds)


def test_a_pipe_that_nobody_reads(programs: Path, building: dict[str, str], tmp_path: Path) -> None:
    """SIGPIPE would end the program."""
    reads, writes = os.pipe()
    os.close(reads)
    under = started_by(f'exec 2>&{writes}; exec "$@"', programs, tmp_path, building, writes)
    os.close(writes)
    assert under.stdout.count(b"before: ") == under.stdout.count(b"after: ") == 1, under
    assert Path(f"{building['CXX']}.asked").exists()


def test_a_pipe_that_is_full(programs: Path, building: dict[str, str], tmp_path: Path, pipe: tuple[int, int]) -> None:
    """Writing would wait for ever."""
    fcntl.fcntl(pipe[1], fcntl.F_SETFL, os.O_NONBLOCK)
    try:
        while True:
            os.write(pipe[1], b"x" * 4096)
    except BlockingIOError:
        fcntl.fcntl(pipe[1], fcntl.F_SETFL, 0)
    under = started_by(f'exec 2>&{pipe[1]}; exec "$@"', programs, tmp_path, building, pipe[1])
    assert under.stdout.count(b"after: ") == 1, under


def test_a_file_that_may_not_grow(programs: Path, building: dict[str, str], tmp_path: Path) -> None:
    """SIGXFSZ would end the program, be it for the message or for the files of the build."""
    under = started_by('(ulimit -f 0; exec "$@" 2>full.txt) | cat', programs, tmp_path, building)
    assert under.stdout.count(b"after: ") == 1 and under.files["full.txt"].endswith("b''"), under
