"""Code that ``torch.compile`` made: it calls other operations than the model's source says, or none that can be seen.
Inside a run it is left alone as a whole, while it is traced and when it runs, and a note says so.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import Module

from ._dispatch_key import hide
from ._modules import below, class_name, note, why_opaque
from ._root import Root
from ._thread import Frame, thread

_EVAL_FRAME = "torch._dynamo.eval_frame"
_installed = False


def install() -> None:
    """Watches where compiled code begins and ends, once torch.compile is in use at all."""
    global _installed
    dynamo: Any = sys.modules.get(_EVAL_FRAME)
    original = getattr(dynamo, "_maybe_set_eval_frame", None)
    if _installed or original is None:
        return
    _installed = True

    def set_eval_frame(callback: Any) -> Any:
        """From here on, code is compiled by ``callback``, or not, if that is no function. What a compiled function
        calls that may not be compiled is still inside it."""
        began = thread.compiled
        if began is not None and began[0] is sys._getframe(1):
            prior = original(callback)
            thread.compiled, thread.frame = None, began[1]
            hide(False)
            return prior
        if callable(callback) and type(thread.frame) is Frame:
            _begin(thread.frame, sys._getframe(1))
        return original(callback)  # the last call here: later ones would be compiled themselves

    dynamo._maybe_set_eval_frame = set_eval_frame


def skip(code: types.CodeType) -> None:
    """Has torch.compile start with what ``code`` calls, as it does with torch's own frames around a ``forward``."""
    compiler = torch._C._dynamo.eval_frame
    if hasattr(compiler, "skip_code"):
        compiler.skip_code(code)
    else:
        action = compiler._FrameAction
        compiler.set_code_exec_strategy(code, compiler._FrameExecStrategy(action.SKIP, action.DEFAULT))


def take_for_torchs_own(original: Callable[..., Any], call: Callable[..., Any]) -> None:
    """torch.compile looks through modules whose ``__call__`` is torch's own: it takes ``call`` for that."""
    for name in ("torch._dynamo.utils", "torch._dynamo.variables.nn_module"):
        holder: Any = sys.modules.get(name)
        if getattr(holder, "unpatched_nn_module_call", None) is original:
            holder.unpatched_nn_module_call = call


def _begin(frame: Frame, caller: types.FrameType) -> None:
    if why_opaque(frame.module) is None:  # of those it was said
        name = getattr(caller.f_locals.get("fn"), "__qualname__", "a function")
        note(frame.root.session, f"{name}: it was compiled with torch.compile(), and its inside is not visible")
    thread.compiled, thread.frame = (caller, frame), frame.root.cold
    hide(True)


def note_compiled(module: Module, roots: list[Root]) -> None:
    """A compiled module that is called outside of runs may have one of the roots' modules in it, as it was compiled."""
    if why_opaque(module) is None:
        return
    inside = {id(part) for _, part in below(module)}
    for root in roots:
        if id(root.module()) in inside:
            note(
                root.session,
                f"{class_name(module)}: a compiled module was called that has the patched one in it;"
                " patches do not hold there, and nothing was recorded",
            )
