"""Activation checkpointing: what ``torch.utils.checkpoint`` computes again, in the backward pass and outside of any
run, gets the patches that it had the first time. Otherwise the gradients would be those of another function.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import checkpoint

from ._dispatch_key import unseen
from ._library import Handle, check, lib, made
from ._modules import class_name, note
from ._raised import behind
from ._root import Cold
from ._thread import Frame, thread
from ._watched import watched
from .errors import GraphPatchError

_installed = False

# What checkpoints without reentrance begin with: the name since torch 2.15, where the other one is left for others to
# call and calls it too, and the name before.
_GENERATORS = "_checkpoint_without_reentrant_generator_impl", "_checkpoint_without_reentrant_generator"


class _Begins(threading.local):
    """Whether a checkpoint begins on this thread whose function is ours."""

    now = False


_begins = _Begins()


class _Snapshot:
    """Where a run stood. The functions of its patches are needed as long as it lives, whatever becomes of their block.

    Args:
        handle: The library's, outside of no run.
    """

    def __init__(self, frame: Frame, handle: Handle) -> None:
        frame.root.enter()
        self.frame, self.handle = frame, handle

    def __del__(self) -> None:
        self.frame.root.leave()


def _snapshot(frame: Frame) -> _Snapshot | None:
    """Where this thread's run stands, if the library knows of one."""
    address = made(lib.gp_run_snapshot)
    return _Snapshot(frame, Handle(lib.gp_snapshot_free, address)) if address else None


def _again(function: Callable[..., Any], first: bool) -> Callable[..., Any]:
    """The function, which stands in the run where it stood at first whenever it is called again. With ``first`` its
    first call is the one in the run."""
    frame = thread.frame
    if isinstance(frame, Cold):
        return lambda *args, **kwargs: _apart(frame, function, args, kwargs)
    if frame is None:
        return function
    snapshot = _snapshot(frame)
    if snapshot is None:
        return function

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal first
        if first:
            first = False
            return function(*args, **kwargs)
        return _resumed(snapshot, function, args, kwargs)

    return call


def _resumed(snapshot: _Snapshot, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    outer = thread.frame
    check(lib.gp_run_resume(snapshot.handle, False, thread.wants_at, thread.plan_at))
    if not thread.wants.value:
        return _apart(snapshot.frame.root.cold, function, args, kwargs)
    old = snapshot.frame
    thread.frame = Frame(old.root, old.module, old.outer, thread.wants.value, thread.plan.value)
    try:
        with watched.in_a_run(snapshot):
            return function(*args, **kwargs)
    except RuntimeError as error:
        cause = behind(error)
        if cause is None:
            raise
        raise cause from None
    finally:
        thread.frame = outer
        lib.gp_run_end()
        if outer is None:
            thread.let_go()


def _apart(cold: Cold, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Nothing is wanted of it: not even that modules called in it are runs of their own."""
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
    for name in _GENERATORS:
        generator = getattr(checkpoint, name, None)
        if generator is not None:
            setattr(checkpoint, name, _wrapped_generator(generator))
            break
    _refuse_unseen()
    reentrant: Any = checkpoint.CheckpointFunction

    class Reentrant(reentrant):  # type: ignore[misc]
        """torch's own, whose function is ours."""

        @classmethod
        def apply(cls, run_function: Callable[..., Any], *args: Any) -> Any:
            return reentrant.apply(_again(run_function, first=True), *args)

    checkpoint.CheckpointFunction = Reentrant


def _wrapped_generator(generator: Callable[..., Any]) -> Callable[..., Any]:
    """torch's generator of a checkpoint's steps, with a function of ours in the place of its own."""

    def wrapped(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Iterator[Any]:
        steps = generator(_again(fn, first=False), *args, **kwargs)
        outer, _begins.now = _begins.now, True
        try:
            with unseen():  # torch's own tensors, for saving the inputs
                next(steps)
        finally:
            _begins.now = outer
        try:
            yield
        except BaseException as error:  # what the function raised; torch ends its contexts with it
            try:
                steps.throw(error)
            except StopIteration:
                return
            raise
        yield from steps

    return wrapped


def _refuse_unseen() -> None:
    """A checkpoint that began elsewhere, by a name that another torch may have or that was imported before it was
    wrapped, would compute something else the second time: where that matters it is refused. What every checkpoint
    without reentrance makes when it begins is the place to see it; of another torch, only that it hooks what is saved
    for the backward pass is known."""
    begun = getattr(checkpoint, "_CheckpointFrame", torch.autograd.graph.saved_tensors_hooks)
    original = begun.__init__

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        frame = thread.frame
        if (
            type(frame) is Frame
            and frame.plan
            and not _begins.now
            and torch.is_grad_enabled()
            and type(self).__module__ == checkpoint.__name__
        ):
            _unseen(frame)
        original(self, *args, **kwargs)

    begun.__init__ = init


def _unseen(frame: Frame) -> None:
    where = (
        f"{class_name(frame.module)}: a checkpoint with use_reentrant=False begins in a patched run in a way"
        f" that is not known of torch {torch.__version__}"
    )
    if frame.root.session is None:  # the program is not to fail, it only runs under `graphpatch run`
        note(None, f"{where}; the gradients through it are not those of what was computed")
        return
    raise GraphPatchError(
        f"{where}, and its gradients would not be those of what was computed; use use_reentrant=True,"
        " or no checkpoint there, or torch.no_grad() where no gradients are needed"
    )
