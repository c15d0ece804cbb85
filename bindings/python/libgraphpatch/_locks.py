"""Locks that are free in a forked child.

A forked child has only one thread. A lock that another thread held would stay locked there for ever, and the data that
it protects may be half changed. So this module takes all of the package's locks before a fork.
"""

from __future__ import annotations

import os
import time
import weakref
from functools import partial
from typing import Any

from ._threads import RLock

# How many seconds a fork waits for threads that hold a lock. They hold it only briefly, unless one of them waits for
# something that the forking thread holds.
_PATIENCE = 5.0

_all: dict[int, weakref.ref[Any]] = {}
# What the forking thread has taken; a second thread that forks waits for the first one's locks.
_taken: list[Any] = []


def new_lock() -> Any:
    """A lock that the thread that holds it may take again."""
    lock = RLock()
    key = id(lock)
    # No code of Python's runs in this callback. A signal handler's exception there would be printed and lost.
    _all[key] = weakref.ref(lock, partial(_all.pop, key))
    return lock


def _before_fork() -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        taken = []
        # Takes all locks or none: calls from the garbage collector take them in any order, so no fixed order is
        # possible.
        for lock in _living():
            if not lock.acquire(blocking=False):
                busy = lock
                break
            taken.append(lock)
        else:
            _taken.extend(taken)
            return
        for lock in taken:
            lock.release()
        if time.monotonic() > deadline:
            return
        # Not time.sleep(), in whose place gevent puts a function that switches to other greenlets.
        if busy.acquire(timeout=0.0001):
            busy.release()


def _in_parent() -> None:
    while _taken:
        _taken.pop().release()


def _in_child() -> None:
    taken = {id(lock) for lock in _taken}
    for lock in _living():
        # The lock was made since, or its holder is a thread that the child does not have.
        if id(lock) not in taken:
            lock._at_fork_reinit()
    _in_parent()


def _living() -> list[Any]:
    return [lock for lock in (reference() for reference in list(_all.values())) if lock is not None]


os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
