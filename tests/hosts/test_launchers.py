"""Programs that start another one: the model's values are those that it has without the launcher, bare and with a patch."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hosting import ENVIRONMENT, GRAPHPATCH

LAUNCHERS = [
    "timeout 60",
    "timeout --foreground -s INT 60",
    "setsid -w",
    "nohup",
    "nice -n 1",
    "stdbuf -oL",
    "env AN_OWN=1",
    "prlimit --nofile=256",
    "flock lock",
    "setpriv --no-new-privs",
    "/lib64/ld-linux-x86-64.so.2",
    "xargs -a none",
    "sh -c 'exec \"$@\"' sh",
    "sh -c '\"$@\"; exit $?' sh",
    "find . -maxdepth 0 -exec",
    "script -qec",
]


def said(words: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, bytes]:
    ended = subprocess.run(
        words,
        cwd=folder,
        env={**ENVIRONMENT, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=180,
    )
    assert b"never matched" not in ended.stderr, ended.stderr
    return ended.returncode, ended.stdout.replace(b"\r\n", b"\n")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_model_is_patched_behind_a_launcher(
    launcher: str, programs: Path, model: dict[str, str], tmp_path: Path
) -> None:
    program = [str(programs / "ends"), "returns"]  # prints what the model gives, and ends with 5
    start = shlex.split(launcher)
    if shutil.which(start[0]) is None:
        pytest.fail(f"{start[0]} is missing: it belongs to util-linux, coreutils or findutils")
    (tmp_path / "none").touch()
    if start[0] == "script":
        launched = [*start, shlex.join(program), "/dev/null"]
    else:
        launched = [*start, *program, *([";"] if start[0] == "find" else [])]
    run = [str(GRAPHPATCH), "run", "--patch", "sub_2.linear=zero", "--"]
    bare, patched = said(program, tmp_path, model), said([*run, *program], tmp_path, model)
    assert bare != patched
    code, output = said(launched, tmp_path, model)  # xargs and find have a code of their own
    assert output == bare[1]
    assert said([*run, *launched], tmp_path, model) == (code, patched[1])


def test_a_launcher_that_empties_the_environment_is_told_of(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "import torch; print(torch.nn.Linear(2, 2)(torch.ones(1, 2)).shape)"]
    command = [str(GRAPHPATCH), "run", "--patch", "linear=zero", "--", "env", "-i", *program]
    ended = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=180)
    assert ended.stdout == "torch.Size([1, 2])\n"
    assert ended.returncode == 3
    assert "took LD_PRELOAD out of its environment" in ended.stderr
