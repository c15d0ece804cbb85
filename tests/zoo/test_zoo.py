"""Runs every check on every model. `make test-zoo MODELS='ctrl mamba'` runs those of some models."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

import checks
import effects
from case import Case
from known import KNOWN

CHECKS: list[Callable[[Case], Iterator[str]]] = [
    checks.outputs,
    checks.scopes,
    checks.probes,
    checks.minus_zero_everywhere,
    checks.one_by_one,
    effects.zero_outputs,
    effects.zero_values,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_model(case: Case, check: Callable[[Case], Iterator[str]]) -> None:
    known = [entry for entry in KNOWN if case.name in entry.models and entry.check == check.__name__]
    shown = set()
    failures = []
    for failure in check(case):
        explained = [entry for entry in known if re.match(entry.failure, failure)]
        shown.update(explained)
        if not explained:
            failures.append(failure)
    gone = [f"this known fault no longer shows: {entry}" for entry in known if entry not in shown]
    assert not failures + gone, f"{len(failures)} failures:\n" + "\n".join([*failures[:40], *gone])
