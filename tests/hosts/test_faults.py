"""Calls for files that fail, one at a time or all from some point on: those of the library and the adapter in a program, and those of
the command. The program's results stay the same, a patch has its effect or its absence is told, and nothing is spoilt for later
programs.

A few of them; `make hosts` has each call fail once. That takes an hour and more, most of it for Python, which imports torch anew each
time. `CALLS=100:200` tries the second hundred of them, and `CALLS=1::2` every other one, as a slice of Python's says it."""

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
# What each program is watched by, and patched by. One in Python starts slowly, so it is watched and patched at once.
WATCHED = {
    "c": ["--tree", "--probe", "sub_2.linear", "--record", "sub_0.linear", "--save", "values.safetensors"],
    "python": ["--tree", "--probe", "relu", "--record", "a.output", "--save", "values.safetensors"],
}
PATCHED = {"c": ["--patch", "sub_0.linear=zero"], "python": ["--patch", "a.output=zero"]}
OPTIONS = {"c": [WATCHED["c"], PATCHED["c"]], "python": [WATCHED["python"] + PATCHED["python"]]}
CALLS = slice(*(int(number) if number else None for number in os.environ.get("CALLS", ":").split(":")))
# Parts of torch that the program does not need, and that take a third of the time in which torch is imported.
QUICKLY = """
import sys, types
for name in ["torch._meta_registrations", "torch.export"]:
    sys.modules[name] = types.ModuleType(name)
"""


class Host:
    """A program that runs a model, and what it does bare and patched."""

    def __init__(self, which: str, folder: Path, programs: Path, model: dict[str, str]) -> None:
        self.folder, self.number, self.which = folder, 0, which
        self.counts: dict[str, dict[str, int]] = {}
        script = folder / "script.py"
        script.write_text(QUICKLY + TORCH["forward"])
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
        watched = self.under(WATCHED[which], {})
        assert watched.code == 0 and watched.stdout == self.bare.stdout and "values.safetensors" in watched.files, (
            watched
        )

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
    return list(numbers)[CALLS] if ALL else sorted(random.Random(kind).sample(numbers, min(1, count)))


def each_error(kind: str, numbers: list[int], share: int) -> list[tuple[int, int]]:
    """The calls with the errors by which they fail: each with the first one, and one of `share` with the others."""
    first, *others = ERRORS[kind]
    more = [(number, error) for error in others for number in numbers[::share]]
    return [(number, first) for number in numbers] + (more if ALL else [])


def is_told(left: Left) -> bool:
    return b"graphpatch: " in left.stderr


class Judged:
    """The runs of a test. Those that were wrong are shown at once, and fail it at its end: the others are tried, too."""

    def __init__(self) -> None:
        self.runs, self.wrong = 0, 0

    def add(self, left: Left, fault: str, *which: object) -> None:
        fault = "it panicked" if b"panic" in left.stderr else fault
        self.runs += 1
        self.wrong += bool(fault)
        if fault:
            print(f"\n{fault}: {which}: {left}", flush=True)


@pytest.mark.parametrize("kind", KINDS)
def test_calls_of_the_library_fail(kind: str, host: Host) -> None:
    judged = Judged()
    for options in OPTIONS[host.which]:
        numbers = some(host.counted(options)[kind], kind)
        # Most calls in Python are its own, for the files of the package.
        for number, error in each_error(kind, numbers, 1 if host.which == "c" else 5):
            left = host.failing(options, call=kind, at=number, error=error)
            judged.add(left, fault_of_the_program(host, options, left), kind, number, errno.errorcode[error], options)
        for number in numbers[::7][:12] if ALL or "--patch" in options else []:
            left = host.failing(options, call=kind, at=number, error=ERRORS[kind][0], **{"from": 1})
            judged.add(left, fault_of_the_program(host, options, left), kind, number, "and all that follow", options)
    print(f"{host.which}: {kind}: {judged.runs} runs")
    assert judged.wrong == 0
    assert_nothing_is_spoilt(host)


@pytest.mark.parametrize("kind", KINDS)
def test_another_call_fails_while_a_failure_is_handled(kind: str, host: Host) -> None:
    judged = Judged()
    for options in OPTIONS[host.which]:
        for number in some(host.counted(options)[kind], kind)[:: 3 if host.which == "c" else 20]:
            for then in (1, 2, 3, 5) if ALL else (1, 2):
                left = host.failing(options, call=kind, at=number, error=ERRORS[kind][0], then=then)
                judged.add(left, fault_of_the_program(host, options, left), kind, number, "and then", then, options)
    print(f"{host.which}: {kind}: {judged.runs} runs")
    assert judged.wrong == 0
    assert_nothing_is_spoilt(host)


def assert_nothing_is_spoilt(host: Host) -> None:
    """By what has failed, for later programs."""
    whole = host.under(PATCHED[host.which], {})
    assert (whole.code, whole.stdout, whole.stderr) == (0, host.patched.stdout, host.patched.stderr)


def fault_of_the_program(host: Host, options: list[str], left: Left) -> str:
    # 1 and 3: the program ended with 0, and not all that was asked for could be kept, saved or applied.
    if left.code not in (0, 1, 3):
        return "it ended in another way"
    if left.code != 0 and not is_told(left):
        return "nothing was told"
    if left.stdout == (host.patched if "--patch" in options else host.bare).stdout:
        return ""
    if left.stdout != host.bare.stdout:
        return "another result"
    return "" if left.code != 0 else "a patch had no effect, which was not told"


@pytest.mark.parametrize("kind", KINDS)
def test_calls_of_the_command_fail(kind: str, host: Host) -> None:
    """The program runs whole, or the command says why it has not started it."""
    judged, options = Judged(), WATCHED[host.which]
    count = host.counted(options, in_command=1)[kind]
    # The command does much the same for every program.
    numbers = some(count, kind) if host.which == "c" else some(count, kind)[::10]
    if kind == "mmap" and 1 in numbers:
        numbers.remove(1)  # Rust's own start, before any code of ours, asks for it and aborts
    for number, error in each_error(kind, numbers, 1):
        left = host.failing(options, call=kind, at=number, error=error, in_command=1)
        judged.add(left, fault_of_the_command(host, left, kind), kind, number, errno.errorcode[error])
    print(f"{host.which}: {kind}: {judged.runs} runs, of {count} calls of the command")
    assert judged.wrong == 0


def fault_of_the_command(host: Host, left: Left, kind: str) -> str:
    if left.stdout:
        if left.stdout != host.bare.stdout or left.code not in (0, 1, 2, 3):
            return "another result"
    elif left.code != 2:
        return "the program was not started, and the command ended in another way"
    # Where the message itself cannot be written, there is none.
    return "" if left.code == 0 or is_told(left) or kind == "write" else "nothing was told"
