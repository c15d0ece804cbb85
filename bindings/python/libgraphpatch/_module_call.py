"""Module calls: the one place in torch through which all of them go.

``torch.nn.Module.__call__`` is replaced once, when the first root is watched; a call on a thread without a run then
costs one test more. Inside a run a call is a scope of the library's. A call that no patch can meet is left alone, with
everything below it. No module is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import Module

from . import _dynamo
from ._dispatch_key import let_higher_order_through
from ._locks import new_lock
from ._modules import class_name, note
from ._root import Cold, Root
from ._run import nested, run, scope
from ._thread import Frame, thread
from ._watched import watched

# torch's own __call__, or whoever was there before.
_original: Any = None
_lock = new_lock()


def watch(root: Root) -> None:
    """Calls of the root's module are runs from now on."""
    install()
    root.refresh()
    watched.add(root)


def watch_outermost(make: Callable[[Module], Root | None]) -> None:
    """Every module that is called outside of a run is a root, as ``make`` says."""
    watched.make_roots(make)
    install()


def install() -> None:
    """Puts :func:`_call` in the place of ``torch.nn.Module.__call__``, once."""
    global _original
    with _lock:
        if _original is not None:
            return
        _original = Module.__call__
        Module.__call__ = _call
        _dynamo.skip(_call.__code__)
        let_higher_order_through()
        _dynamo.take_for_torchs_own(_original, _call)


def _call(self: Module, *args: Any, **kwargs: Any) -> Any:
    if not watched.any:
        return _original(self, *args, **kwargs)
    frame = thread.frame
    if frame is None or watched.several:
        root = _root(self, frame)
        if root is not None:
            if type(frame) is Frame:
                return nested(root, frame, self, args, kwargs, _original)
            return run(root, self, args, kwargs, _original)
    if type(frame) is not Frame:
        return _original(self, *args, **kwargs)
    known = frame.ignored.get(id(self))
    if known is None or known[0] is not self or known[1].get(known[2]) is not self:
        return scope(frame, self, args, kwargs, _original)
    thread.frame = frame.root.cold
    try:
        return _original(self, *args, **kwargs)
    finally:
        thread.frame = frame


def _root(module: Module, frame: Frame | Cold | None) -> Root | None:
    """The root of which a call of ``module`` in ``frame`` is a run, if any."""
    if torch.compiler.is_compiling():  # torch.compile looks through it to the module
        return None
    roots = watched.roots.get(id(module), ())
    if not roots:
        if frame is None and watched.outermost is not None:
            return watched.outermost(module)
        if frame is None and not thread.apart:
            _note_unseen(module)
        return None
    if any(root.module() is not module or _is_of(frame, root) for root in roots):
        return None  # the module calls itself
    return watched.choose(module, roots)


def _is_of(frame: Frame | Cold | None, root: Root) -> bool:
    return frame is root.cold or (type(frame) is Frame and frame.root is root)


def _note_unseen(module: Module) -> None:
    """What should be a part of a run, or a run, and cannot be: said, not silent."""
    roots = watched.all()
    _dynamo.note_compiled(module, roots)
    for root in roots:
        if root.is_running(module):
            note(
                root.session,
                f"{class_name(module)}: called during a run, but on another thread, where nothing is recorded or"
                " patched",
            )
