"""Models of C++ whose addresses are used again, operators that call modules, and functions of patches that run a model."""

import subprocess

import pytest

from support import PROGRAMS, run_process

CASES = ["functions", "models", "operators", "operators_that_call", "parameters", "replaced_modules", "scripts"]


def test_every_case_is_run() -> None:
    listed = subprocess.run([PROGRAMS / "cpp_reused"], capture_output=True, text=True, check=True)
    assert sorted(listed.stdout.split()) == CASES


@pytest.mark.parametrize("case", CASES)
def test_reused(case: str) -> None:
    result = run_process([PROGRAMS / "cpp_reused", case]).ok()
    assert result.stdout == "all as it must be\n"
