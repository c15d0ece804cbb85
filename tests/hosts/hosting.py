"""Runs a host program bare and under `graphpatch run`, and compares all that the two leave behind."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GRAPHPATCH = ROOT / "target/release/graphpatch"
# After so many seconds a program counts as hung.
PATIENCE = 180
# What we print on stderr: notes, the lines that continue one, and trees.
OURS = re.compile("graphpatch: |  |$|<root>: Graph|# |[│├└]")
STDIN = bytes(range(256)) * 40 + b"\nthe last line"

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("GRAPHPATCH_")},
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "LC_ALL": "C",
    "PYTHONWARNINGS": "default",
    # Some of these programs crash on purpose; Python's fault handler must not add to their output.
    "PYTHONFAULTHANDLER": "",
}


@dataclass
class Left:
    """How a program ended and what it left."""

    code: int | str
    stdout: bytes
    stderr: bytes
    files: dict[str, str] = field(default_factory=dict)


def run(command: list[str], folder: Path, environment: dict[str, str], pass_fds: Sequence[int] = ()) -> Left:
    """Runs the command in a folder and a session of its own. The code of a signal is 128 + its number."""
    work = folder / "work"
    work.mkdir(parents=True)
    stdin = folder / "stdin"
    stdin.write_bytes(STDIN)
    with stdin.open("rb") as given, (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        process = subprocess.Popen(
            command,
            cwd=work,
            env={**ENVIRONMENT, **environment},
            stdin=given,
            stdout=out,
            stderr=err,
            start_new_session=True,
            pass_fds=pass_fds,
        )
        try:
            code: int | str = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = "hung"
    if isinstance(code, int) and code < 0:
        code = 128 - code
    files = {
        str(path.relative_to(work)): _told(path) for path in sorted(work.rglob("*")) if "__pycache__" not in path.parts
    }
    return Left(code, (folder / "out").read_bytes(), (folder / "err").read_bytes(), files)


def _told(path: Path) -> str:
    """Kind, mode and content of a file."""
    info = path.lstat()
    kind = stat.filemode(info.st_mode)
    if stat.S_ISREG(info.st_mode) and not path.suffix == ".sqlite":
        return f"{kind} {path.read_bytes()!r}"
    return f"{kind} {os.readlink(path)}" if stat.S_ISLNK(info.st_mode) else kind


def compare(command: list[str], folder: Path, environment: dict[str, str], *options: str) -> Left:
    """Fails if the program does anything else under `graphpatch run OPTIONS`. Returns what it left behind there."""
    bare = run(command, folder / "bare", environment)
    under = run([str(GRAPHPATCH), "run", *options, "--", *command], folder / "under", environment)
    assert under.code == bare.code, f"exit {bare.code} became {under.code}: {under.stderr.decode(errors='replace')}"
    assert plain(under.stdout) == plain(bare.stdout)
    said = plain(under.stderr)
    assert said.startswith(plain(bare.stderr)), f"its stderr was changed: {plain(bare.stderr)!r}\nbecame {said!r}"
    ours = said[len(plain(bare.stderr)) :].decode(errors="replace")
    for line in ours.splitlines():
        # The library's lines begin on a line of their own, even if the program has not ended its last line.
        assert OURS.match(line), f"not in our name: {line!r} of {ours!r}"
    assert "panic" not in ours, ours
    changed = {name for name in {*bare.files, *under.files} if bare.files.get(name) != under.files.get(name)}
    assert not changed, {name: (bare.files.get(name), under.files.get(name)) for name in changed}
    return under


def plain(text: bytes) -> bytes:
    """Replaces what differs between two runs of the same program: addresses, process ids, folders."""
    text = re.sub(rb"0x[0-9a-f]{6,}", b"ADDRESS", text)
    text = re.sub(rb"/[^ '\"]*/(bare|under)/", b"FOLDER/", text)
    return re.sub(rb"\b(pid|process|PID)[ =:]+\d+", b"PID", text)
