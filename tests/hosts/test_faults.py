"""Calls for files that fail, one at a time or all from some point on: those of the library and the adapter in a program, and those of
the command. The program's results stay the same, a patch has its effect or its absence is told, and nothing is spoilt for later
programs.

A few of them; `make hosts` has each call fail once."""

import errno
import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from compiling import HERE, compile_program
from hosting import ENVIRONMENT, GRAPHPATCH, Left, run
from python_hosts import TORCH

ALL = os.environ.get("HOSTS") == "all"
KINDS = ["open", "read", "write", "rename", "mkdir", "mmap"]
# What a disk, a quota and a limit answer, and what has to be asked again.
ERRORS = {
    "open": [errno.EIO, errno.EMFILE],
    "read": [errno.EIO, errno.EINTR],
    "write": [errno.ENOSPC, errno.EINTR],
    "rename": [errno.EIO],
    "mkdir": [errno.EACCES],
    "mmap": [errno.ENOMEM],
}
WATCHED = ["--tree", "--probe", "sub_2.linear", "--record", "sub_0.linear", "--save", "values.safetensors"]
PATCHED = {"c": ["--patch", "sub_0.linear=zero"], "python": ["--patch", "a.output=zero"]}


class Host:
    """A program that runs a model, and what it does bare and patched."""

    def __init__(self, which: str, folder: Path, programs: Path, model: dict[str, str]) -> None:
        self.folder, self.number, self.which = folder, 0, which
        self.counts: dict[str, dict[str, int]] = {}
        script = folder / "script.py"
        script.write_text(TORCH["forward"])
        self.program = (
            [str(programs / "threads"), "models_on_threads"] if which == "c" else [sys.executable, str(script)]
        )
        self.library = compile_program(HERE / "programs/no_files.c", folder / "no_files.so", "-shared", "-fPIC")
        self.cache = folder / "cache"
        self._copy_cache()
        # No adapter can be built: where one has to be, the program runs without.
        self.environment = {**model, "GRAPHPATCH_CACHE": str(self.cache), "CXX": "/bin/false"}
        self.bare = run(self.program, folder / "bare", self.environment)
        assert self.bare.code == 0
        self.patched = self.under(PATCHED[which], {})
        assert self.patched.code == 0 and self.patched.stdout != self.bare.stdout, self.patched

    def _copy_cache(self) -> None:
        """The adapter for this libtorch, so that nothing can happen to that of other tests."""
        torch = importlib.util.find_spec("torch")
        assert torch and torch.submodule_search_locations
        self.cache.mkdir()
        placing = ["doctor", "--build", "--into", str(self.cache), "--torch", torch.submodule_search_locations[0]]
        done = subprocess.run([GRAPHPATCH, *placing], env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert len(list(self.cache.glob("adapter-*.so"))) == 1, done

    def under(self, options: list[str], environment: dict[str, str]) -> Left:
        self.number += 1
        command = [str(GRAPHPATCH), "run", *options, "--", *self.program]
        return run(command, self.folder / str(self.number), {**self.environment, **environment})

    def failing(self, options: list[str], **environment: object) -> Left:
        names = {f"NO_FILE_{name.upper()}": str(value) for name, value in environment.items()}
        return self.under(options, {"LD_PRELOAD": str(self.library), "NO_FILE_BELOW": str(self.cache), **names})

    def counted(self, options: list[str], **environment: object) -> dict[str, int]:
        """How many calls of each kind there are."""
        what = repr((options, environment))
        if what not in self.counts:
            file = self.folder / f"count-{self.number}"
            self.failing(options, count=file, **environment)
            told = [list(map(int, line.split())) for line in file.read_text().splitlines()]
            self.counts[what] = dict(zip(KINDS, max(told, key=sum), strict=True))
        return self.counts[what]


@pytest.fixture(scope="module", params=["c", "python"] if ALL else ["c"])
def host(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, programs: Path, model: dict[str, str]
) -> Host:
    return Host(request.param, tmp_path_factory.mktemp(f"faults-{request.param}"), programs, model)


def some(count: int, kind: str) -> list[int]:
    """Which of the calls fail."""
    numbers = range(1, count + 1)
    return list(numbers) if ALL else sorted(random.Random(kind).sample(numbers, min(1, count)))


def is_told(left: Left) -> bool:
    return b"graphpatch: " in left.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_calls_of_the_library_fail(kind: str, host: Host) -> None:
    tried = 0
    for options in [WATCHED, PATCHED[host.which]]:
        count = host.counted(options)[kind]
        for error in ERRORS[kind] if ALL else ERRORS[kind][:1]:
            for number in some(count, kind):
                left = host.failing(options, call=kind, at=number, error=error)
                judge(host, options, left, (kind, number, errno.errorcode[error]))
                tried += 1
        for number in some(count, kind)[::7][:12] if ALL or options is not WATCHED else []:
            left = host.failing(options, call=kind, at=number, error=ERRORS[kind][0], **{"from": 1})
            judge(host, options, left, (kind, number, "and all that follow"))
            tried += 1
    # Nothing that failed has spoilt what later programs use.
    whole = host.under(PATCHED[host.which], {})
    assert (whole.code, whole.stdout, whole.stderr) == (0, host.patched.stdout, host.patched.stderr)
    print(f"{host.which}: {kind}: {tried} runs")


def judge(host: Host, options: list[str], left: Left, which: object) -> None:
    if options is WATCHED:
        # 1 and 3: the program ended with 0, and not all that was asked for could be kept or saved.
        assert left.code in (0, 1, 3) and left.stdout == host.bare.stdout, (which, left)
        assert left.code == 0 or is_told(left), (which, left)
    elif left.stdout == host.patched.stdout:
        assert left.code == 0 or is_told(left), (which, left)
    else:
        assert left.stdout == host.bare.stdout and left.code not in (0, "hung") and is_told(left), (which, left)
    assert b"panic" not in left.stderr, (which, left)


@pytest.mark.parametrize("kind", KINDS)
def test_calls_of_the_command_fail(kind: str, host: Host) -> None:
    """The program runs whole, or the command says why it has not started it."""
    count = host.counted(WATCHED, in_command=1)[kind]
    for error in ERRORS[kind] if ALL else ERRORS[kind][:1]:
        for number in some(count, kind):
            left = host.failing(WATCHED, call=kind, at=number, error=error, in_command=1)
            which = (kind, number, errno.errorcode[error], left)
            if left.stdout:
                assert left.stdout == host.bare.stdout and left.code in (0, 1, 2, 3), which
            elif (kind, number) == ("mmap", 1):
                continue  # Rust's own start, before any code of ours, asks for it and aborts
            else:
                assert left.code == 2, which
            # Where the message itself cannot be written, there is none.
            assert left.code == 0 or is_told(left) or kind == "write", which
            assert b"panic" not in left.stderr, which
    print(f"{host.which}: {kind}: {count} calls of the command")
