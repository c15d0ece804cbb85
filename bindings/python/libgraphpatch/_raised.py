"""Errors that came by way of libtorch, which knows them as text only."""

from __future__ import annotations

from ._thread import thread
from .errors import PatchError

_PREFIX = "graphpatch: "


def behind(error: RuntimeError) -> BaseException | None:
    """What stands behind an error that came by way of libtorch: what a function of the user's raised, or a patch that
    cannot be applied. None for an error of the model's own."""
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
