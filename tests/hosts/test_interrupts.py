"""A signal handler may raise an exception at any instruction, and so may another thread. Afterwards every call works, no patch outlives
its block, and the exception has not ended in one of our functions, where Python prints and drops it ("Exception ignored in").
So it is where greenlets leave a call in its middle for another one, and the exception comes while they switch.
A handler or a finalizer may run a model itself, in the middle of another one's call: each gives its own result."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from compiling import HERE
from hosting import ENVIRONMENT, GRAPHPATCH, ROOT

ALL = os.environ.get("HOSTS") == "all"
# So many interrupts, and a tenth as many models in the middle of another one.
INTERRUPTS = int(os.environ.get("INTERRUPTS", 100_000 if ALL else 1500))
PROGRAM = str(HERE / "programs/interrupts.py")
RECORDINGS = str(HERE / "programs/recordings.py")
SWITCHES = str(HERE / "programs/switches.py")
IN_THE_MIDDLE = str(HERE / "programs/handlers.py")
PATHS = {
    "PYTHONPATH": str(ROOT / "bindings/python"),
    "GRAPHPATCH_LIBRARY": str(ROOT / "target/release/libgraphpatch.so"),
}
# A program is watched by the command: one output is patched, and another one kept.
WATCHED = [
    str(GRAPHPATCH),
    "run",
    "--patch",
    "first.output=add:1",
    "--probe",
    "second.output",
    "--save",
    "probes.safetensors",
]


def answer(
    command: list[str], environment: dict[str, str], folder: Path, notes: tuple[str, ...] = ()
) -> tuple[int, int]:
    """What the program has counted. It says nothing else, nor does libgraphpatch but for these notes."""
    done = subprocess.run(
        command, cwd=folder, env={**ENVIRONMENT, **environment}, capture_output=True, text=True, timeout=7200
    )
    assert done.returncode == 0, done.stderr
    notes = ("graphpatch: wrote ", *notes)
    said = [line for line in done.stderr.splitlines() if not any(note in line for note in notes)]
    assert not said, said
    print(done.stdout)
    came, wrong = done.stdout.split()[:2]
    return int(came), int(wrong)


def test_no_patch_outlives_its_block(tmp_path: Path) -> None:
    interrupted, wrong = answer([sys.executable, PROGRAM, str(INTERRUPTS)], PATHS, tmp_path)
    assert interrupted == INTERRUPTS and wrong == 0, (interrupted, wrong)


def test_a_program_that_is_only_watched(tmp_path: Path) -> None:
    interrupted, wrong = answer([*WATCHED, "--", sys.executable, PROGRAM, str(INTERRUPTS), "alone"], {}, tmp_path)
    assert interrupted == INTERRUPTS and wrong == 0, (interrupted, wrong)


def test_a_graph_that_is_recorded(tmp_path: Path) -> None:
    """Recording calls a function of ours for the lines of the source, out of C. What comes up in it is not lost."""
    times = INTERRUPTS // 5
    interrupted, wrong = answer([sys.executable, RECORDINGS, str(times)], PATHS, tmp_path)
    assert interrupted == times and wrong == 0, (interrupted, wrong)


def test_greenlets_that_switch(tmp_path: Path) -> None:
    times = INTERRUPTS // 2
    interrupted, wrong = answer([sys.executable, SWITCHES, str(times)], PATHS, tmp_path)
    assert interrupted == times and wrong == 0, (interrupted, wrong)


def test_greenlets_that_switch_and_are_only_watched(tmp_path: Path) -> None:
    times = INTERRUPTS // 2
    # The patch and the probe hold in all three models.
    watched = [*WATCHED, "--", sys.executable, SWITCHES, str(times), "alone"]
    interrupted, wrong = answer(watched, {}, tmp_path, ("is in 3 roots",))
    assert interrupted == times and wrong == 0, (interrupted, wrong)


@pytest.mark.parametrize("way", ["signal", "finalizer", "exception"])
def test_models_in_the_middle_of_another(way: str, tmp_path: Path) -> None:
    times = INTERRUPTS // 10
    came, wrong = answer([sys.executable, IN_THE_MIDDLE, way, str(times)], PATHS, tmp_path)
    assert came > times // 10 and wrong == 0, (came, wrong)


@pytest.mark.parametrize("way", ["signal", "finalizer", "exception"] if ALL else ["signal"])
def test_models_in_the_middle_of_one_that_is_only_watched(way: str, tmp_path: Path) -> None:
    times = INTERRUPTS // 10
    # A handler that comes between the beginning of a run and that of its module is told of: its model is left alone.
    notes = ("a run is already open on this thread", "is in 2 roots")
    came, wrong = answer([*WATCHED, "--", sys.executable, IN_THE_MIDDLE, way, str(times), "alone"], {}, tmp_path, notes)
    assert came > times // 10 and wrong == 0, (came, wrong)
