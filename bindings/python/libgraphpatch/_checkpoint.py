"""Activation checkpointing: what ``torch.utils.checkpoint`` computes again, in the backward pass and outside of any
run, gets the patches that it had the first time. Otherwise the gradients would be those of another function.
"""

from __future__ import annotations

from typing import Any, Callable

import torch.utils.checkpoint as checkpoint

from . import _calls, _roots
from ._abi import check, lib, made

_installed = False


class _Snapshot:
    """Where a run stood."""

    def __init__(self, frame: _calls.Frame) -> None:
        self.frame = frame
        self.handle = made(lib.gp_run_snapshot)
        if self.handle:  # the functions of its patches are still needed, whatever becomes of their block
            frame.root.enter()

    def __del__(self) -> None:
        if getattr(self, "handle", 0):
            lib.gp_snapshot_free(self.handle)
            self.frame.root.leave()


def _again(function: Callable[..., Any], first: bool) -> Callable[..., Any]:
    """The function, which stands in the run where it stood at first whenever it is called again. With ``first`` its
    first call is the one in the run."""
    frame = _calls.thread.frame
    if isinstance(frame, _roots.Cold):
        return lambda *args, **kwargs: _apart(frame, function, args, kwargs)
    if frame is None:
        return function
    snapshot = _Snapshot(frame)

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal first
        if first or not snapshot.handle:
            first = False
            return function(*args, **kwargs)
        return _resumed(snapshot, function, args, kwargs)

    return call


def _resumed(snapshot: _Snapshot, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    thread = _calls.thread
    outer = thread.frame
    check(lib.gp_run_resume(snapshot.handle, False, thread.wants_at, thread.plan_at))
    if not thread.wants.value:
        return _apart(snapshot.frame.root.cold, function, args, kwargs)
    old = snapshot.frame
    thread.frame = _calls.Frame(old.root, old.module, old.outer, thread.wants.value, thread.plan.value)
    try:
        with _calls.in_a_run(snapshot):
            return function(*args, **kwargs)
    except RuntimeError as error:
        cause = _calls.behind(error)
        if cause is None:
            raise
        raise cause from None
    finally:
        thread.frame = outer
        lib.gp_run_end()
        if outer is None:
            thread.error = thread.held = None


def _apart(cold: _roots.Cold, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Nothing is wanted of it: not even that modules called in it are runs of their own."""
    thread = _calls.thread
    outer, thread.frame = thread.frame, cold
    try:
        return function(*args, **kwargs)
    finally:
        thread.frame = outer


def install() -> None:
    """Puts itself between ``checkpoint()`` and its two ways of working, once."""
    global _installed
    if _installed:
        return
    _installed = True
    generator = checkpoint._checkpoint_without_reentrant_generator

    def wrapped_generator(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        steps = generator(_again(fn, first=False), *args, **kwargs)
        with _calls.unseen():  # torch's own tensors, for saving the inputs
            next(steps)
        yield
        yield from steps

    reentrant = checkpoint.CheckpointFunction

    class Reentrant(reentrant):  # type: ignore[misc, valid-type]
        """torch's own, whose function is ours."""

        @classmethod
        def apply(cls, run_function: Callable[..., Any], *args: Any) -> Any:
            return reentrant.apply(_again(run_function, first=True), *args)

    checkpoint._checkpoint_without_reentrant_generator = wrapped_generator
    checkpoint.CheckpointFunction = Reentrant
