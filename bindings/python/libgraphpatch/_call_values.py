"""The inputs and the output of a call: they are shown to the library, and taken back as patches left them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch.nn import Module

from ._copied import Copied
from ._library import check, fail, lib
from ._raised import spare
from ._signature import Signature
from ._structure import addresses, changed, changed_elements, flatten, flatten_inputs
from ._thread import Answer, Frame, thread

# What has to be called when a call is over, if anything.
Settle = Callable[[], None] | None


def show_output(frame: Frame, output: Any, owned: bool) -> Any:
    """Shows what the innermost scope returns to the library, and returns it as patches left it."""
    answer = Answer()
    try:
        structure, tensors = flatten(output)
        check(lib.gp_scope_output(structure, addresses(tensors), len(tensors), owned, answer.wants_at))
    except Exception as error:
        spare(frame.root, frame.module, error)
        return output
    return changed_output(frame, output) if answer.wants else output


def changed_output(frame: Frame, output: Any) -> Any:
    """The output as patches left it, after it was shown."""
    try:
        copies: list[Copied] = []
        left = changed(output, copies)
        if copies:  # the module may hold the originals
            thread.settle_later(partial(_settle, frame, frame.module, copies))
        return left
    except Exception as error:
        spare(frame.root, frame.module, error)
        return output


def changed_inputs(
    frame: Frame, module: Module, signature: Signature, args: Any, kwargs: Any, values: tuple[Any, ...]
) -> tuple[Any, Any, Settle]:
    """The arguments as patches left them, after they were shown as ``values``; and what has to be called when the call
    is over, if anything."""
    try:
        copies: list[Copied] = []
        left = changed_elements(values, copies)
        over = partial(_settle, frame, module, copies) if copies else None
        return *signature.arguments.scatter(args, kwargs, values, left), over
    except Exception as error:
        spare(frame.root, module, error)
        return args, kwargs, None


def _settle(frame: Frame, module: Module, copies: list[Copied]) -> None:
    """Settles copies of containers with their originals; the inner ones come first."""
    for copied in copies:
        try:
            copied.settle()
        except Exception as error:
            spare(frame.root, module, error)


def fail_value(frame: Frame, status: int) -> None:
    """Handles the status of a value that could not be shown."""
    try:
        fail(status)
    except Exception as error:
        spare(frame.root, frame.module, error)


def show_inputs(
    frame: Frame, module: Module, signature: Signature | None, args: Any, kwargs: Any
) -> tuple[Any, Any, Settle]:
    """Shows the arguments of the innermost scope's call to the library. Returns what `changed_inputs` returns."""
    if signature is None or (not module._forward_pre_hooks and signature.arguments.lacks(args, kwargs)):
        return args, kwargs, None
    answer = Answer()
    try:
        values = signature.arguments.gather(args, kwargs)
        structure, tensors = flatten_inputs(values)
        check(lib.gp_scope_inputs(structure, addresses(tensors), len(tensors), answer.wants_at))
    except Exception as error:
        spare(frame.root, module, error)
        return args, kwargs, None
    if not answer.wants:
        return args, kwargs, None
    return changed_inputs(frame, module, signature, args, kwargs, values)
