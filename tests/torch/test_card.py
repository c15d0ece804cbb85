"""CUDA values on a stand-in for two cards (tests/gpu/stand_in). All code between libtorch and the kernels runs as on a
card, and the CPU runs the kernels. This proves nothing about a card's speed or the order of its memory accesses."""

import subprocess

import pytest

from support import PROGRAMS, run_process

CARD = PROGRAMS / "card" / "card"


def cases() -> list[str]:
    return [
        "values",
        "several",
        "removal",
        "contexts",
        "devices",
        "first_capture",
        "live",
        "kept",
    ]


def test_every_check_is_run() -> None:
    listed = subprocess.run([CARD], capture_output=True, text=True, check=True).stdout.split()
    assert sorted(listed) == sorted(cases())


@pytest.mark.parametrize("case", cases())
def test_on_a_card_that_is_none(case: str) -> None:
    result = run_process([CARD, case])
    assert result.code == 0 and result.stdout == "all as it must be\n", result.stderr
