"""Several patches together: order, sets, enabling, runs, threads, records, counters (tests/programs/cpp/sets.cpp)."""

import re
from functools import cache

import pytest

from support import PROGRAMS, ROOT, run_process

SOURCE = (ROOT / "tests/programs/cpp/sets.cpp").read_text()
CHECKS = re.findall(r"NAMED\((\w+)\),", SOURCE)


@cache
def outcomes() -> dict[str, str]:
    result = run_process([PROGRAMS / "sets"])
    return dict(line.split("\t", 1) for line in result.stdout.splitlines())


@pytest.mark.parametrize("check", CHECKS)
def test_sets(check: str) -> None:
    assert outcomes().get(check, "the program did not get there") == "ok"


def test_every_check_is_listed() -> None:
    assert CHECKS and set(CHECKS) == set(re.findall(r"^void (\w+)\(\) \{$", SOURCE, re.MULTILINE))
