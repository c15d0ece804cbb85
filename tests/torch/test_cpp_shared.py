"""C++: values that several modules see, modules that are not called as others are, what a patched copy keeps, and
calls that are left in their middle."""

import subprocess

import pytest

from support import PROGRAMS, run_process

CASES = {
    "cpp_calls": ["branches", "direct_forward", "other_methods", "outside_of_runs", "unregistered"],
    "cpp_copies": ["conjugates", "kinds", "memory_formats", "names", "parameters", "strides"],
    "cpp_fibers": ["interleaved", "mixed_up", "on_another_thread", "unwanted"],
    "cpp_shared": [
        "called_twice_and_cloned",
        "filled_by_reference",
        "filled_ivalues",
        "handed",
        "lent",
        "read_around",
        "written_by_out",
    ],
}


@pytest.mark.parametrize("program", CASES)
def test_every_case_is_run(program: str) -> None:
    listed = subprocess.run([PROGRAMS / program], capture_output=True, text=True, check=True)
    assert sorted(listed.stdout.split()) == CASES[program]


@pytest.mark.parametrize("program, case", [(program, case) for program, cases in CASES.items() for case in cases])
def test_case(program: str, case: str) -> None:
    result = run_process([PROGRAMS / program, case]).ok()
    assert result.stdout == "all as it must be\n"
