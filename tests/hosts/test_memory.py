"""Allocations of the library and of the adapter that fail do not harm the program: a single one, or all from some point on. The
program's results stay the same."""

import os
import random
from pathlib import Path

import pytest

from compiling import HERE, compile_program
from hosting import GRAPHPATCH, Left, run

# A sample; all of them would take hours.
TIMES = int(os.environ.get("TIMES", 300 if os.environ.get("HOSTS") == "all" else 6))
OPTIONS = ["--tree", "--probe", "sub_2.linear", "--patch", "sub_0.linear[0:0]=zero", "--save", "probes.safetensors"]


class Host:
    """A program that runs a TorchScript module thirty times, on two threads."""

    def __init__(self, folder: Path, programs: Path, model: dict[str, str]) -> None:
        self.folder, self.model = folder, model
        self.program = [str(programs / "threads"), "models_on_threads"]
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
        assert plain.code == 0 and b"no memory" not in plain.stderr and b"linear: Tensor" in plain.stderr, plain
        self.allocations = int((folder / "count").read_text())

    def with_failures(self, environment: dict[str, str]) -> Left:
        self.number += 1
        command = [str(GRAPHPATCH), "run", *OPTIONS, "--", *self.program]
        return run(command, self.folder / str(self.number), {**self.model, "LD_PRELOAD": self.preload, **environment})


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, programs: Path, model: dict[str, str]) -> Host:
    return Host(tmp_path_factory.mktemp("memory"), programs, model)


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
