"""Programs that know nothing of libgraphpatch do under `graphpatch run` what they do without it: the same output, files and
exit status. `make hosts` runs all of them. Without HOSTS=all, every eighth or sixteenth case runs, and those of ONCE."""

import os
import re
import sys
from pathlib import Path

import pytest

from compiling import SOURCES
from hosting import compare
from python_hosts import PLAIN, TORCH
from shell_hosts import SHELL

HERE = Path(__file__).resolve().parent
ALL = os.environ.get("HOSTS") == "all"
CASES = [
    f"{source.partition('.')[0]}-{name}"
    for source in SOURCES
    for name in re.findall(r"^CASE\((\w+)\)", (HERE / "programs" / source).read_text(), re.MULTILINE)
]
# The names of cases that once differed, and so always run.
ONCE = {"module_call", "module_call_pickled", "module_call_annotations", "model_in_daemon_thread", "greenlets"}
ONCE |= {"objects_that_count_who_asks"}

# Options of `graphpatch run`: to record, and to patch an empty slice, which changes nothing.
RECORD = ["--tree"]
PATCH = ["--patch", "sub_0.linear[0:0]=zero"]


def part(names: list[str], step: int = 8) -> list[str]:
    return names if ALL else [name for i, name in enumerate(names) if i % step == 0 or name in ONCE]


@pytest.mark.parametrize("name", part(list(SHELL)))
def test_shell(name: str, tmp_path: Path) -> None:
    compare(["sh", "-c", SHELL[name]], tmp_path, {}, *RECORD)


@pytest.mark.parametrize("name", part(CASES))
def test_c(name: str, programs: Path, tmp_path: Path) -> None:
    compare(_command(programs, name), tmp_path, _environment(programs), *RECORD)


@pytest.mark.parametrize("name", part(CASES, 16))
def test_c_with_a_model(name: str, programs: Path, model: dict[str, str], tmp_path: Path) -> None:
    compare(_command(programs, name), tmp_path, {**_environment(programs), **model}, *RECORD)


@pytest.mark.parametrize("name", CASES if ALL else ["ends-returns"])
def test_c_with_a_patched_model(name: str, programs: Path, model: dict[str, str], tmp_path: Path) -> None:
    compare(_command(programs, name), tmp_path, {**_environment(programs), **model}, *PATCH)


@pytest.mark.parametrize("name", part(list(PLAIN)))
def test_python(name: str, tmp_path: Path) -> None:
    compare(_script(PLAIN[name], tmp_path), tmp_path, {}, *RECORD)


@pytest.mark.parametrize("name", part(list(TORCH)))
def test_torch(name: str, tmp_path: Path) -> None:
    compare(_script(TORCH[name], tmp_path), tmp_path, {}, *RECORD)


def _script(text: str, folder: Path) -> list[str]:
    file = folder / "script.py"
    file.write_text(text)
    return [sys.executable, str(file)]


def _command(programs: Path, name: str) -> list[str]:
    program, _, case = name.partition("-")
    return [str(programs / program), case, "an argument", "", "\udcff\udc80*\n"]


def _environment(programs: Path) -> dict[str, str]:
    return {"HOST_PLUGIN": str(programs / "plugin.so"), "HOST_WIDE": "\udcff€"}
