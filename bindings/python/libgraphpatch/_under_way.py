"""Calls of modules that were under way on any thread when the library began to watch modules. What they call is a part
of them, and no run of its own: a patch holds from the next run on.
"""

from __future__ import annotations

import sys
import types

from torch.nn import Module

from ._threads import this_thread

_CODES = tuple(
    function.__code__
    for function in (vars(Module).get("_wrapped_call_impl"), vars(Module).get("_call_impl"))
    if isinstance(function, types.FunctionType)
)
# By the thread's number, the id of the frame of its outermost call. The frame itself would keep what its call holds.
_calls: dict[int, int] = {}


def keep_calls() -> None:
    """Keeps which calls are under way."""
    for number, innermost in sys._current_frames().items():
        outermost: int | None = None
        frame: types.FrameType | None = innermost
        while frame is not None:
            if frame.f_code in _CODES:
                outermost = id(frame)
            frame = frame.f_back
        if outermost is not None:
            _calls[number] = outermost


def is_in_kept_call() -> bool:
    """Whether this thread is inside a call that was kept."""
    if not _calls:
        return False
    number = this_thread()
    kept = _calls.get(number)
    if kept is None:
        return False
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        if id(frame) == kept and frame.f_code in _CODES:
            return True
        frame = frame.f_back
    _calls.pop(number, None)
    return False
