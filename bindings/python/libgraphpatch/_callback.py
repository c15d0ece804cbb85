"""Functions that the library calls in the middle of a run, on the thread that runs the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ._header import gp_torch_callback
from ._thread import thread

# The results of a gp_torch_callback. Anything but the first is a failure.
_DONE, _FAILED = 0, 1


def torch_callback(
    answer: Callable[[Any, Any], Tensor | None], refused: Callable[[Any, BaseException], None] | None = None
) -> Any:
    """A gp_torch_callback. Models that it calls are no part of the run.

    Args:
        answer: Called with the user's pointer and the tensor's address. The tensor that it returns, if any, takes the
            place of the other one.
        refused: Called with the user's pointer and what ``answer`` raised; an Exception then counts as reported. All
            else that ``answer`` raises is kept, and raised again in Python when libtorch has returned.
    """

    def call(user: Any, address: int | None, replacement: Any) -> int:
        frame, apart, thread.frame, thread.apart = thread.frame, thread.apart, None, True
        try:
            made = answer(user, address)
            if made is not None:
                replacement[0] = made._cdata
                thread.held = made  # until libtorch has its own reference
            return _DONE
        except BaseException as error:
            if refused is not None:
                refused(user, error)
            if refused is None or not isinstance(error, Exception):
                thread.error = error
            return _FAILED
        finally:
            thread.frame, thread.apart = frame, apart

    return gp_torch_callback(call)
