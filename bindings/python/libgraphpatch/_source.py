"""Where in the user's source a thread is: the frames of its Python stack, without those of torch and of this package.

The library asks for them only while it records, and only for nodes that it has not recorded before.
"""

from __future__ import annotations

import ctypes
import linecache
import os
import sys
import types

import torch

from ._handle import Handle
from ._header import gp_source_callback
from ._library import check, lib
from ._modules import note_failure
from ._native import sheltered
from ._replay import Replay, source_lines
from ._run import BEGINNING
from ._thread import thread

REPLAY = Replay.run.__code__

_OWN = tuple(os.path.dirname(os.path.abspath(folder)) + os.sep for folder in (__file__, str(torch.__file__)))

# Of a stack that is deeper, only so many of the innermost frames are kept: all frames of all calls of modules would
# take memory by the square of how deep the modules are nested.
MOST = 64

# For each file name, whether the file is the user's.
_users: dict[str, bool] = {}


def _is_users(file: str) -> bool:
    known = _users.get(file)
    if known is None:
        known = _users[file] = not file.startswith(_OWN) and not file.startswith("<frozen ")
    return known


def frames() -> list[tuple[str, int, str, str]]:
    """File, line, function and text of each of the user's frames inside the run of this thread, innermost last;
    :data:`MOST` at most."""
    found: list[tuple[str, int, str, str]] = []
    frame: types.FrameType | None = sys._getframe(1)
    if thread.called_from is not None:  # in a captured graph: the operation's own lines, and those that call the graph
        found += source_lines(thread.called_from, _is_users)[::-1]
        while frame is not None and frame.f_code is not REPLAY:
            frame = frame.f_back
        # Further out are the functions that call the graph, and the code that torch.compile has made of the user's
        # code.
        while frame is not None and not _is_users(frame.f_code.co_filename):
            frame = frame.f_back
        frame = None if frame is None else frame.f_back
    caller = thread.caller
    while frame is not None and len(found) < MOST:
        code = frame.f_code
        if code is BEGINNING or frame is caller:
            break
        if _is_users(code.co_filename):
            line = linecache.getline(code.co_filename, frame.f_lineno, frame.f_globals)
            found.append((code.co_filename, frame.f_lineno, code.co_name, line.strip()))
        frame = frame.f_back
    return found[::-1]


def _add_frames(_user: int | None, out: int | None) -> None:
    try:
        for file, line, function, code in frames():
            lib.gp_frames_add(out, file.encode(), line, function.encode(), code.encode())
    except (RecursionError, ctypes.ArgumentError):
        return  # the program is as deep as Python allows, and goes on; the node has no lines
    except Exception as error:
        note_failure("lines of the source", "some are missing", error)


_CALLBACK = ctypes.cast(gp_source_callback(sheltered(_add_frames)), ctypes.c_void_p)


def install(session: Handle | None) -> None:
    """Sets the callback by which the library asks for frames, for ``session`` or the attached one."""
    check(lib.gp_session_source(session, _CALLBACK, None))
