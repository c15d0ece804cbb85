"""Activation checkpointing: what ``torch.utils.checkpoint`` computes again, in the backward pass and outside of any
run, gets the patches that it had the first time. Otherwise the gradients would be those of another function.
"""

from __future__ import annotations

import functools
import threading
from typing import Any, Callable

import torch
import torch.utils.checkpoint as checkpoint

from . import _calls, _roots
from ._abi import check, lib, made
from .errors import GraphPatchError

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
    for name in _GENERATORS:
        generator = getattr(checkpoint, name, None)
        if generator is not None:
            setattr(checkpoint, name, _wrapped_generator(generator))
            break
    _refuse_unseen()
    reentrant = checkpoint.CheckpointFunction

    class Reentrant(reentrant):  # type: ignore[misc, valid-type]
        """torch's own, whose function is ours."""

        @classmethod
        def apply(cls, run_function: Callable[..., Any], *args: Any) -> Any:
            return reentrant.apply(_again(run_function, first=True), *args)

    checkpoint.CheckpointFunction = Reentrant


# What checkpoints without reentrance begin with: the name since torch 2.15, where the other one is left for others to
# call and calls it too, and the name before.
_GENERATORS = "_checkpoint_without_reentrant_generator_impl", "_checkpoint_without_reentrant_generator"


class _Thread(threading.local):
    # Whether a checkpoint begins whose function is ours.
    begins = False


_thread = _Thread()


def _wrapped_generator(generator: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        steps = generator(_again(fn, first=False), *args, **kwargs)
        outer, _thread.begins = _thread.begins, True
        try:
            with _calls.unseen():  # torch's own tensors, for saving the inputs
                next(steps)
        finally:
            _thread.begins = outer
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
        frame = _calls.thread.frame
        if (type(frame) is _calls.Frame and frame.plan and not _thread.begins and torch.is_grad_enabled()
                and type(self).__module__ == checkpoint.__name__):
            _unseen(frame)
        original(self, *args, **kwargs)

    begun.__init__ = init


def _unseen(frame: _calls.Frame) -> None:
    where = (f"{_roots.class_name(frame.module)}: a checkpoint with use_reentrant=False begins in a patched run in a way"
             f" that is not known of torch {torch.__version__}")
    if frame.root.session is None:  # the program is not to fail, it only runs under `graphpatch run`
        _roots.note(None, f"{where}; the gradients through it are not those of what was computed")
        return
    raise GraphPatchError(f"{where}, and its gradients would not be those of what was computed; use use_reentrant=True,"
                          " or no checkpoint there, or torch.no_grad() where no gradients are needed")
