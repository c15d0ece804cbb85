"""Allocations of the library and of the adapter that fail do not harm the program: a single one, or all from some point on. The
program's results stay the same."""

import os
import random
import sys
from pathlib import Path

import pytest

from compiling import HERE, compile_program
from hosting import GRAPHPATCH, Left, run
from python_hosts import TORCH

ALL = os.environ.get("HOSTS") == "all"
# A sample, 2,000 of both kinds and programs together; all of them would take hours.
TIMES = int(os.environ.get("TIMES", 500 if ALL else 6))
OPTIONS = {
    "c": ["--tree", "--probe", "sub_2.linear", "--patch", "sub_0.linear[0:0]=zero"],
    "python": ["--tree", "--probe", "relu", "--patch", "a.output[0:0]=zero"],
}


class Host:
    """A program that runs a TorchScript module on several threads, or a module of Python's."""

    def __init__(self, which: str, folder: Path, programs: Path, model: dict[str, str]) -> None:
        self.folder, self.model, self.options = folder, model, OPTIONS[which]
        script = folder / "script.py"
        script.write_text(TORCH["forward"])
        self.program = (
            [str(programs / "threads"), "models_on_threads"] if which == "c" else [sys.executable, str(script)]
        )
        self.preload = str(
            compile_program(
                HERE / "programs/no_memory.c",
                folder / "no_memory.so",
                "-shared",
                "-fPIC",
                "-fexceptions",
                "-Wl,--no-as-needed",
                "-lstdc++",
            )
        )
        self.bare = run(self.program, folder / "bare", model)
        self.number = 0
        plain = self.with_failures({"NO_MEMORY_COUNT": str(folder / "count")})
        assert plain.code == 0 and b"no memory" not in plain.stderr and b"Tensor(2, 4" in plain.stderr, plain
        self.allocations = int((folder / "count").read_text())

    def with_failures(self, environment: dict[str, str]) -> Left:
        self.number += 1
        command = [str(GRAPHPATCH), "run", *self.options, "--save", "probes.safetensors", "--", *self.program]
        return run(command, self.folder / str(self.number), {**self.model, "LD_PRELOAD": self.preload, **environment})


@pytest.fixture(scope="module", params=["c", "python"] if ALL else ["c"])
def host(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, programs: Path, model: dict[str, str]
) -> Host:
    return Host(request.param, tmp_path_factory.mktemp(f"memory-{request.param}"), programs, model)


@pytest.mark.parametrize("kind", ["NO_MEMORY_AT", "NO_MEMORY_FROM"])
def test_the_program_goes_on(kind: str, host: Host) -> None:
    assert host.allocations > 1000
    numbers = random.Random(17).sample(range(1, host.allocations), TIMES)
    told = 0
    for number in numbers:
        left = host.with_failures({kind: str(number)})
        # Exit code 3 means that the program ended with 0, and that a patch was not applied everywhere.
        assert left.code in (0, 3) and left.stdout == host.bare.stdout, (number, left)
        told += b"ran out of memory" in left.stderr or b"no memory to record" in left.stderr
    assert told > 0
    print(f"{kind}: {len(numbers)} of {host.allocations} allocations, {told} runs said so")
