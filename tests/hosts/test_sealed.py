"""A program that limits its own system calls by seccomp, so that a forbidden call kills it. It still runs patched and recorded,
ends as it does alone, and a message tells what is missing in the outputs."""

from pathlib import Path

import pytest

from compiling import HERE, compile_with_model
from hosting import GRAPHPATCH, run

OPTIONS = ["--tree", "--record", "sub_0.linear", "--probe", "sub_1.relu", "--save", "values.safetensors"]
MISSING = b"limited its own system calls (seccomp)"
# In many containers a filter is active from the start. Then the library cannot see that a program adds another one, and
# writing a report may kill the program by SIGSYS (docs/limits.md).
HIDDEN = "\nSeccomp:\t0\n" not in Path("/proc/self/status").read_text()
SIGSYS = 128 + 31


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(compile_with_model(HERE / "programs/sealed.c", tmp_path_factory.mktemp("sealed") / "sealed"))


@pytest.mark.parametrize(("end", "code"), [("exit", 5), ("_exit", 6), ("thread", 7), ("child", 8)])
def test_it_runs_and_ends_as_alone(end: str, code: int, sealed: str, model: dict[str, str], tmp_path: Path) -> None:
    bare = run([sealed, end], tmp_path / "bare", model)
    assert bare.code == code and bare.stdout.count(b"\n") >= 2, bare
    under = run([str(GRAPHPATCH), "run", *OPTIONS, "--", sealed, end], tmp_path / "under", model)
    if HIDDEN:
        # If the child was killed, the program itself ends with 3.
        assert under.code in (code, 3 if end == "child" else SIGSYS), under
        return
    assert (under.code, under.stdout) == (code, bare.stdout), under
    assert b"linear: Tensor" in under.stderr and "values.safetensors" in under.files
    # With "thread", the program ends by its own system call, before the library can write the message.
    assert (MISSING in under.stderr) == (end != "thread"), under.stderr
    assert (b"a forked child of process" in under.stderr) == (end == "child"), under.stderr


@pytest.mark.parametrize("end", ["exit", "_exit", "thread", "child"])
def test_it_is_patched_all_the_same(end: str, sealed: str, model: dict[str, str], tmp_path: Path) -> None:
    patch = ["--patch", "sub_2.linear=zero"]
    under = run([str(GRAPHPATCH), "run", *patch, "--", sealed, end], tmp_path, model)
    assert set(under.stdout.split()) == {b"0"}, under
