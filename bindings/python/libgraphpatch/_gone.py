"""What is done when an object is gone.

Python calls a function of ours then, in the middle of any code of the program's. What a signal handler raises in that
function would be printed and lost, and the function would end half done. So these functions are called until they have
ended, and what came up in them is raised afterwards (``persisted``).
"""

from __future__ import annotations

import atexit
import itertools
import sys
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from ._native import persisted

_numbers = itertools.count()
_waiting: dict[int, weakref.ref[Any]] = {}
_at_exit: dict[int, Callable[[], None]] = {}


def when_gone(held: Any, function: Callable[..., None], *args: Any, at_exit: bool = False) -> None:
    """Calls the function when the object is gone.

    Args:
        function: It may be called again, so a second call does nothing that the first one has done.
        at_exit: Whether it is called at the end of the process for an object that is still there. Otherwise it is not:
            other threads may still use what it takes away.
    """
    number = next(_numbers)
    call = partial(_end, number, function, args)
    if at_exit:
        _at_exit[number] = call
    _waiting[number] = weakref.ref(held, persisted(call))


def _end(number: int, function: Callable[..., None], args: tuple[Any, ...], _: Any = None) -> None:
    if not sys.is_finalizing():
        function(*args)
    _at_exit.pop(number, None)
    _waiting.pop(number, None)


@atexit.register
def _exit() -> None:
    _waiting.clear()
    for call in [*_at_exit.values()]:
        call()


class OfObjects:
    """Values by object, by the object itself and not by what it equals. What belongs to an object that is gone is gone
    as well. Unlike in a ``weakref.WeakKeyDictionary``, no function in Python runs then, which a signal handler could
    interrupt."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[weakref.ref[Any], Any]] = {}

    def get(self, key: Any) -> Any:
        """The value, or None."""
        reference, value = self._held.get(id(key), (None, None))
        return value if reference is not None and reference() is key else None

    def put(self, key: Any, value: Any) -> None:
        """Gives the object a value."""
        self._held[id(key)] = weakref.ref(key, partial(self._held.pop, id(key))), value

    def drop(self, key: Any) -> None:
        """Takes the object's value away, if it has one."""
        self._held.pop(id(key), None)

    def __bool__(self) -> bool:
        return bool(self._held)
