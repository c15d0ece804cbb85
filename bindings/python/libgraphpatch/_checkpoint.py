"""Activation checkpointing: ``torch.utils.checkpoint`` computes a part of a run again in the backward pass, outside of
any run. Here this second computation gets the patches that the first one had. Otherwise the gradients would be those of
another function.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import checkpoint

from ._dispatch_key import unseen
from ._handle import Handle
from ._header import GP_WANTS_PARAMETERS
from ._library import check, lib, made
from ._modules import class_name, note
from ._raised import raise_cause
from ._root import Cold
from ._thread import Answer, Frame, thread
from ._threads import local
from ._watched import watched
from .errors import GraphPatchError

_installed = False

# torch's function with which checkpoints without reentrance begin. The first name is that of torch 2.15 and later,
# which keeps a function of the second name that calls it; earlier versions have only the second.
_GENERATORS = "_checkpoint_without_reentrant_generator_impl", "_checkpoint_without_reentrant_generator"


class _Begins(local):
    """Whether this thread is just beginning a checkpoint whose function is wrapped by ours."""

    now = False


_begins = _Begins()


class _Snapshot:
    """A point in a run. As long as it lives, the functions of the run's patches are kept, even if their block has
    ended.

    Args:
        handle: The library's snapshot.
    """

    def __init__(self, frame: Frame, handle: Handle) -> None:
        self.frame, self.handle = frame, handle
        frame.root.keep(self)


def _snapshot(frame: Frame) -> _Snapshot | None:
    """A snapshot of this thread's run at this point; None if the library knows of no run."""
    address = made(lib.gp_run_snapshot)
    return _Snapshot(frame, Handle(lib.gp_snapshot_free, address)) if address else None


def _again(function: Callable[..., Any], first: bool) -> Callable[..., Any]:
    """A function that calls ``function`` at the present point of the run, with its patches, also when it is called
    later. With ``first``, the first call is still part of the run itself and is left as it is."""
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
    answer = Answer()
    check(lib.gp_run_resume(snapshot.handle, False, answer.wants_at, answer.plan_at))
    if not answer.wants:
        return _apart(snapshot.frame.root.cold, function, args, kwargs)
    old = snapshot.frame
    by_parameter = GP_WANTS_PARAMETERS if old.by_parameter else 0
    frame = Frame(old.root, old.module, old.outer, answer.wants | by_parameter, answer.plan)
    frame.tree = old.tree
    thread.frame = frame
    try:
        with watched.in_a_run(snapshot):
            return function(*args, **kwargs)
    except RuntimeError as error:
        raise_cause(error)
        raise
    finally:
        thread.frame = outer
        lib.gp_run_end()
        if outer is None:
            thread.let_go()


def _apart(cold: Cold, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Calls the function where nothing is wanted of it. Not even calls of modules in it become runs."""
    outer, thread.frame = thread.frame, cold
    lib.gp_run_decline(True)
    try:
        return function(*args, **kwargs)
    finally:
        thread.frame = outer
        lib.gp_run_decline(False)


def install() -> None:
    """Wraps the two functions by which ``checkpoint()`` works, with and without reentrance. Done once."""
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
        """torch's own class, with the function wrapped by ours."""

        @classmethod
        def apply(cls, run_function: Callable[..., Any], *args: Any) -> Any:
            return reentrant.apply(_again(run_function, first=True), *args)

    checkpoint.CheckpointFunction = Reentrant


def _wrapped_generator(generator: Callable[..., Any]) -> Callable[..., Any]:
    """torch's generator of a checkpoint's steps, with the checkpoint's function wrapped by ours."""

    def wrapped(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Iterator[Any]:
        steps = generator(_again(fn, first=False), *args, **kwargs)
        outer, _begins.now = _begins.now, True
        try:
            with unseen():  # torch makes tensors here to save the inputs; they are not the model's
                next(steps)
        finally:
            _begins.now = outer
        try:
            yield
        except BaseException as error:  # raised by the function; torch's generator gets it, to end its contexts
            try:
                steps.throw(error)
            except StopIteration:
                return
            raise
        yield from steps

    return wrapped


def _refuse_unseen() -> None:
    """Refuses checkpoints without reentrance that did not begin by the wrapped function, where patches hold: the second
    computation would not have them. Such a checkpoint may begin by a name that only another version of torch has, or
    that was imported before it was wrapped. It is noticed by the object that every such checkpoint makes when it
    begins. If this torch has no class of that name, it is noticed by hooks on tensors that are saved for the backward
    pass."""
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
    if frame.root.session is None:  # under `graphpatch run` the program must not fail because of this
        note(None, f"{where}; the gradients through it are not those of what was computed")
        return
    raise GraphPatchError(
        f"{where}, and its gradients would not be those of what was computed; use use_reentrant=True,"
        " or no checkpoint there, or torch.no_grad() where no gradients are needed"
    )
