"""C++: parameters, lists and variables that several modules see."""

import subprocess

import pytest

from support import PROGRAMS, run_process

CASES = ["called_twice_and_cloned", "filled_by_reference", "handed", "read_around", "written_by_out"]


def test_every_case_is_run() -> None:
    listed = subprocess.run([PROGRAMS / "cpp_shared"], capture_output=True, text=True, check=True)
    assert sorted(listed.stdout.split()) == CASES


@pytest.mark.parametrize("case", CASES)
def test_shared(case: str) -> None:
    result = run_process([PROGRAMS / "cpp_shared", case]).ok()
    assert result.stdout == "all as it must be\n"
