"""Calls of modules that were under way when the library began to watch modules, on any thread or in a greenlet that had
been left in their middle. What they call is a part of them, and no run of its own: a patch holds from the next run on.
"""

from __future__ import annotations

import gc
import sys
import types
import weakref
from typing import Any

from torch.nn import Module

from ._gone import OfObjects
from ._kinds import is_a
from ._threads import this_thread

_CODES = tuple(
    function.__code__
    for function in (vars(Module).get("_wrapped_call_impl"), vars(Module).get("_call_impl"))
    if isinstance(function, types.FunctionType)
)
# By the thread's number, the id of the frame of its outermost call. The frame itself would keep what its call holds.
_calls: dict[int, int] = {}
# The same by the id of a greenlet that had been left, with the greenlet: another one may get its id.
_left: dict[int, tuple[weakref.ref[Any], int]] = {}
# The greenlets that ran then, one on each thread: the calls in `_calls` are theirs.
_ran = OfObjects()


def keep_calls() -> None:
    """Keeps which calls are under way."""
    for number, innermost in sys._current_frames().items():
        outermost = _outermost(innermost)
        if outermost is not None:
            _calls[number] = outermost
    for greenlet in _greenlets():
        if greenlet and greenlet.gr_frame is None:
            _ran.put(greenlet, True)
        outermost = _outermost(greenlet.gr_frame)
        if outermost is not None:
            _left[id(greenlet)] = weakref.ref(greenlet), outermost


def _greenlets() -> list[Any]:
    """All greenlets of the process, if it has loaded greenlet."""
    kind = getattr(sys.modules.get("greenlet"), "greenlet", None)
    if kind is None:
        return []
    # An object is not asked for its class, since some answer with a warning.
    return [held for held in gc.get_objects() if is_a(held, kind)]


def _outermost(innermost: types.FrameType | None) -> int | None:
    outermost: int | None = None
    frame = innermost
    while frame is not None:
        if frame.f_code in _CODES:
            outermost = id(frame)
        frame = frame.f_back
    return outermost


def is_in_kept_call() -> bool:
    """Whether this thread is inside a call that was kept."""
    if _left and _is_in_left_call():
        return True
    if not _calls:
        return False
    number = this_thread()
    kept = _calls.get(number)
    if kept is None:
        return False
    if _is_in(kept):
        return True
    # Another greenlet of this thread may run meanwhile, in which nothing shows whether the call has ended.
    if not _ran or _ran.get(sys.modules["greenlet"].getcurrent()):
        _calls.pop(number, None)
    return False


def _is_in_left_call() -> bool:
    """The same for the greenlet that this thread runs now."""
    current = sys.modules["greenlet"].getcurrent()
    reference, kept = _left.get(id(current), (None, 0))
    if reference is None:
        return False
    if reference() is current and _is_in(kept):
        return True
    _left.pop(id(current), None)
    return False


def _is_in(kept: int) -> bool:
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        if id(frame) == kept and frame.f_code in _CODES:
            return True
        frame = frame.f_back
    return False
