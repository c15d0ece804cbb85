"""Errors of this library's, and errors that passed through libtorch, which keeps only their text."""

from __future__ import annotations

import ctypes

from torch.nn import Module

from ._modules import note_failure
from ._root import Root
from ._thread import thread
from .errors import PatchError

_PREFIX = "graphpatch: "
_FUNCTION_FAILED = "the function returned 1"


def raise_cause(error: BaseException) -> None:
    """Raises the cause of an error that passed through libtorch, if it has another one: see cause_of()."""
    cause = cause_of(error) if isinstance(error, RuntimeError) else None
    try:
        if cause is not None:
            raise cause from None
    finally:
        # An exception holds the frames that it passed through. If one of them holds the exception, all of them stay
        # until the garbage collector comes by, and with them the frames of the model: hooks that it has set stay on.
        del cause, error


def cause_of(error: RuntimeError) -> BaseException | None:
    """The cause of an error that passed through libtorch: the exception that a function of the user's raised, or a
    PatchError for a patch that cannot be applied. None for an error of the model's own."""
    text = str(error)
    at = text.find(_PREFIX + "patch ")
    if at < 0 and not isinstance(error, PatchError):
        return None
    if _FUNCTION_FAILED in text and thread.error is not None:
        cause, thread.error = thread.error, None
        if not isinstance(cause, PatchError):
            return cause
        # A patch of the package's own says why it cannot be applied; the library says where.
        text = text.replace(_FUNCTION_FAILED, str(cause))
    elif isinstance(error, PatchError):
        return None
    return PatchError((text[at + len(_PREFIX) :] if at >= 0 else text).splitlines()[0])


def spare(root: Root, module: Module, error: Exception) -> None:
    """Handles an error. Under `graphpatch run`, an error of this library's must not end the program: it becomes a note,
    and the value is left alone. In a session of the program's own the error is raised. So is, always, the error of a
    patch that cannot be applied."""
    if root.session is not None or isinstance(error, PatchError):
        try:
            if isinstance(error, ctypes.ArgumentError) and RecursionError.__name__ in str(error):
                # Python's own error where its stack is full; ctypes has kept only its text.
                raise RecursionError("maximum recursion depth exceeded") from None
            raise error
        finally:
            del error  # see raise_cause()
    note_failure(type(module).__qualname__, "a value was left alone", error)
