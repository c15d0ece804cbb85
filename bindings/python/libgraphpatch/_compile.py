"""Code that ``torch.compile`` made: it calls other operations than the model's source says, or none that can be seen.
Inside a run it is left alone as a whole, while it is traced and when it runs, and a note says so.
"""

from __future__ import annotations

import sys
from typing import Any, List

import torch
from torch.nn import Module

from . import _calls
from ._roots import Root, class_name, compiled, note

_DYNAMO = "torch._dynamo.eval_frame"
_installed = False


def install() -> None:
    """Watches where compiled code begins and ends, once torch.compile is in use at all."""
    global _installed
    dynamo = sys.modules.get(_DYNAMO)
    original = getattr(dynamo, "_maybe_set_eval_frame", None)
    if _installed or original is None:
        return
    _installed = True

    def set_eval_frame(callback: Any) -> Any:
        """From here on, code is compiled by ``callback``, or not, if that is no function. What a compiled function
        calls that may not be compiled is still inside it."""
        thread = _calls.thread
        began = thread.compiled
        if began is not None and began[0] is sys._getframe(1):
            prior = original(callback)
            thread.compiled, thread.frame = None, began[1]
            _exclude(False)
            return prior
        if callable(callback) and type(thread.frame) is _calls.Frame:
            _begin(thread, sys._getframe(1))
        return original(callback)  # the last call here: later ones would be compiled themselves

    dynamo._maybe_set_eval_frame = set_eval_frame  # type: ignore[union-attr]


def skip(code: Any) -> None:
    """Has torch.compile start with what ``code`` calls, as it does with torch's own frames around a ``forward``."""
    compiler = torch._C._dynamo.eval_frame
    if hasattr(compiler, "skip_code"):
        compiler.skip_code(code)
    else:
        action = compiler._FrameAction
        compiler.set_code_exec_strategy(code, compiler._FrameExecStrategy(action.SKIP, action.DEFAULT))


def _begin(thread: Any, caller: Any) -> None:
    frame = thread.frame
    if compiled(frame.module) is None:  # of those it was said
        name = getattr(caller.f_locals.get("fn"), "__qualname__", "a function")
        note(frame.root.session, f"{name}: it was compiled with torch.compile(), and its inside is not visible")
    thread.compiled, thread.frame = (caller, frame), frame.root.cold
    _exclude(True)


def _exclude(on: bool) -> None:
    """Whether operations on this thread are hidden from its run."""
    torch._C._dispatch_tls_set_dispatch_key_excluded(_calls.key(), on)


def note_compiled(module: Module, roots: List[Root]) -> None:
    """A compiled module that is called outside of runs may have one of the roots' modules in it, as it was compiled."""
    if compiled(module) is None:
        return
    inside = {id(below) for below in module.modules()}
    for root in roots:
        if id(root.module()) in inside:
            note(root.session, f"{class_name(module)}: a compiled module was called that has the patched one in it;"
                               " patches do not hold there, and nothing was recorded")
