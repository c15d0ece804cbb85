"""Locks that are free in a forked child.

A forked child has only one thread. A lock that another thread held would stay locked there for ever, and the data that
it protects may be half changed. So this module takes all of the package's locks before a fork.
"""

from __future__ import annotations

import os
import time
import weakref
from functools import partial
from itertools import islice
from operator import methodcaller
from typing import Any

from ._native import persisted
from ._threads import RLock, local

# How many seconds a fork waits for threads that hold a lock. They hold it only briefly, unless one of them waits for
# something that the forking thread holds.
_PATIENCE = 5.0

_all: dict[int, weakref.ref[Any]] = {}


class _Taken(local):
    """What this thread has taken for its fork. A second thread that forks waits for the first one's locks."""

    def __init__(self) -> None:
        self.locks: list[Any] = []


_taken = _Taken()


def new_lock() -> Any:
    """A lock that the thread that holds it may take again."""
    lock = RLock()
    key = id(lock)
    # No code of Python's runs in this callback. A signal handler's exception there would be printed and lost.
    _all[key] = weakref.ref(lock, partial(_all.pop, key))
    return lock


def _before_fork() -> None:
    _release_taken()
    deadline = time.monotonic() + _PATIENCE
    # Takes all locks or none: calls from the garbage collector take them in any order, so no fixed order is possible.
    # Each call of any() and extend() is one step, in which no signal handler runs.
    while locks := _living():
        _taken.locks.extend(filter(methodcaller("acquire", blocking=False), locks))
        if len(_taken.locks) == len(locks):
            return
        taken = {id(lock) for lock in _taken.locks}
        busy = [lock for lock in locks if id(lock) not in taken][:1]
        _release_taken()
        if time.monotonic() > deadline:
            return
        # Not time.sleep(), in whose place gevent puts a function that switches to other greenlets.
        any(map(methodcaller("release"), filter(methodcaller("acquire", timeout=0.0001), busy)))


def _release_taken() -> None:
    """Releases what was taken. It is one step, too, and a second call finds nothing."""
    any(map(methodcaller("release"), islice(iter(_taken.locks.pop, None), len(_taken.locks))))


def _in_child() -> None:
    for lock in _living():
        # Nobody holds it, or a thread that the child does not have.
        if not lock._is_owned():
            lock._at_fork_reinit()
    _release_taken()


def _living() -> list[Any]:
    return [lock for lock in (reference() for reference in list(_all.values())) if lock is not None]


os.register_at_fork(
    before=persisted(_before_fork), after_in_parent=persisted(_release_taken), after_in_child=persisted(_in_child)
)
