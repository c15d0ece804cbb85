"""Programs with greenlets (gevent, eventlet): they leave a model's call in its middle, and make others on the same
thread before they go on with it. While a run is under way, a function is called at each switch. It sets aside what is
known of the calls of the one greenlet, and takes up what is known of the other's.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from . import _generation, _hooked
from ._library import check, lib
from ._modules import note, note_failure
from ._native import method, native
from ._root import Cold
from ._thread import Frame, Thread, thread

Greenlets = tuple[Any, Any]
Trace = Callable[[str, Greenlets], Any]


# What has failed, and what follows from it.
_MIXED_UP = ("calls of models in greenlets", "they are mixed up")


class _Calls(NamedTuple):
    """The calls of a greenlet that are under way."""

    # The address of the library's object; None if the library knows of no call.
    aside: int | None
    frame: Frame | Cold | None
    # The attributes of `thread`.
    state: dict[str, Any]
    hooked: list[_hooked.HookedCall]
    part: _generation.TextPart | None


class _Switches:
    """What greenlet calls on this thread at each switch, after it.

    Args:
        before: The function that the program had there.
    """

    def __init__(self, before: Trace | None) -> None:
        self.before = before
        # By the greenlet's id. The greenlet itself must not be held: it ends when nobody holds it, by a switch. The
        # extension keeps them in another form.
        self.calls: dict[int, _Calls] = {}
        # For the extension: where this thread's attributes are, and what they are where no call is under way.
        self.state: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
            (vars(thread), vars(Thread())),
            (vars(_hooked.calls), {"open": []}),
            (vars(_generation.state), {"part": None}),
        )

    def __call__(self, event: str, greenlets: Greenlets) -> None:
        try:
            left, entered = greenlets
            calls = _set_aside()
            if calls is not None:
                self.calls[id(left)] = calls
            calls = self.calls.pop(id(entered), None)
            if calls is not None:
                _take_up(calls)
        except Exception as error:  # a failure of this library must not end the program
            note_failure(*_MIXED_UP, error)
        finally:
            if self.before is not None:
                self.before(event, greenlets)

    def failed(self) -> None:
        """Called by the extension."""
        note(None, f"{_MIXED_UP[0]}: {_MIXED_UP[1]}, as libgraphpatch failed")


# A signal handler may raise an exception at any instruction of a Python function. The extension's version is not
# written in Python, so that each switch is whole.
if native is not None:
    _Switches.__call__ = method(native.switched)  # type: ignore[method-assign]


def see_switches() -> None:
    """Called when a run begins in a program that has loaded greenlet."""
    greenlet = sys.modules["greenlet"]
    if not hasattr(greenlet, "gettrace"):  # the module is being loaded
        return
    before = greenlet.gettrace()
    if type(before) is not _Switches:
        greenlet.settrace(_Switches(before))


def ignore_switches() -> None:
    """Called when a run has ended in such a program."""
    if thread.frame is not None:  # it was a run inside of another one
        return
    greenlet = sys.modules["greenlet"]
    now = greenlet.gettrace() if hasattr(greenlet, "gettrace") else None
    if type(now) is _Switches and not now.calls:
        greenlet.settrace(now.before)


def _set_aside() -> _Calls | None:
    """Takes this thread's calls from it. None if there are none."""
    address = ctypes.c_void_p()
    check(lib.gp_calls_set_aside(ctypes.byref(address)))
    frame = thread.frame
    if address.value is None and frame is None:
        return None
    calls = _Calls(address.value, frame, dict(vars(thread)), _hooked.calls.open, _generation.state.part)
    vars(thread).clear()
    Thread.__init__(thread)
    thread.frame = None
    _hooked.calls.open = []
    _generation.state.part = None
    return calls


def _take_up(calls: _Calls) -> None:
    """Gives this thread the calls back."""
    check(lib.gp_calls_take_up(calls.aside))
    vars(thread).update(calls.state)
    thread.frame = calls.frame
    _hooked.calls.open = calls.hooked
    _generation.state.part = calls.part
