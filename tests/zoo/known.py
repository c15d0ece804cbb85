"""Known failures, each with the reason. The list is strict: a failure that is not listed fails the test, and so does an
entry that no longer fails."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    models: tuple[str, ...]
    check: str
    failure: str
    """A regular expression that matches the beginning of each failure that it explains."""
    reason: str


KNOWN: list[Known] = []
