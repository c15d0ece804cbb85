"""Errors that passed through libtorch, which keeps only their text."""

from __future__ import annotations

from ._thread import thread
from .errors import PatchError

_PREFIX = "graphpatch: "


def behind(error: RuntimeError) -> BaseException | None:
    """The cause of an error that passed through libtorch: the exception that a function of the user's raised, or a
    PatchError for a patch that cannot be applied. None for an error of the model's own."""
    text = str(error)
    at = text.find(_PREFIX + "patch ")
    if at < 0 and not isinstance(error, PatchError):
        return None
    if "the function returned 1" in text and thread.error is not None:
        cause, thread.error = thread.error, None
        return cause
    if isinstance(error, PatchError):
        return None
    return PatchError(text[at + len(_PREFIX) :].splitlines()[0])
