"""Locks that a fork leaves free.

A forked child has one thread. A lock that another thread held would stay locked there for ever, and what it protects
may be half changed: before a fork this module therefore takes all of the package's locks.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Any

# Seconds that a fork waits for the threads that hold a lock. They hold it for a moment, unless one waits for what the
# forking thread holds.
_PATIENCE = 5.0

_all: dict[int, weakref.ref[Any]] = {}
# What the forking thread has taken; a second thread that forks waits for the first one's locks.
_taken: list[Any] = []


def new_lock() -> Any:
    """A lock that the thread that holds it may take again."""
    lock = threading.RLock()
    key = id(lock)
    _all[key] = weakref.ref(lock, lambda _: _all.pop(key, None))
    return lock


def _before_fork() -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        taken = []
        # All or none: the garbage collector's calls take locks in any order, so there is none to keep to.
        for lock in _living():
            if not lock.acquire(blocking=False):
                break
            taken.append(lock)
        else:
            _taken.extend(taken)
            return
        for lock in taken:
            lock.release()
        if time.monotonic() > deadline:
            return
        time.sleep(0.0001)


def _in_parent() -> None:
    while _taken:
        _taken.pop().release()


def _in_child() -> None:
    taken = {id(lock) for lock in _taken}
    for lock in _living():
        # Made since, or never let go of: nobody here holds it.
        if id(lock) not in taken:
            lock._at_fork_reinit()
    _in_parent()


def _living() -> list[Any]:
    return [lock for lock in (reference() for reference in list(_all.values())) if lock is not None]


os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
