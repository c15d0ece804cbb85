"""Replaces those functions of ``torch.compile`` through which captured graphs go, so that the library sees each
graph."""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import Module

from . import _marks
from ._captured import Captured
from ._dispatch_key import hidden, hide, key
from ._dynamo import before_the_first_compilation, skip_package, trace_hooked_modules
from ._forward_scope import give_back
from ._locks import new_lock
from ._module_call import call_module, is_seen, stands_for_torchs_own
from ._modules import is_handlers, note, see_compiled
from ._thread import Frame, thread
from ._watched import watched

_installed = False
# Whether the replacements will be installed before torch.compile compiles for the first time.
_waiting = False
_lock = new_lock()


def install_first() -> None:
    """Does what :func:`install` does, before anything was compiled, so that nothing has to be compiled again."""
    _install()


def install() -> None:
    """Makes each captured graph a :class:`Captured` from now on. Code that was compiled before is compiled again when
    it is called next. If torch.compile is not in use yet, this waits until it is: a model may use it without being
    compiled, as ``torch.cond`` does."""
    global _waiting
    if _install():
        torch._dynamo.reset()
    elif not _installed and not _waiting:
        _waiting = True
        before_the_first_compilation(install_first)


def _install() -> bool:
    """Installs the replacements. True if this call has done it, and not an earlier one."""
    global _installed
    if _installed or "torch._dynamo.convert_frame" not in sys.modules:
        return False
    with _lock:
        if _installed:
            return False
        _installed = True
        try:
            outputs: Any = importlib.import_module("torch._dynamo.output_graph").OutputGraph
            contexts: Any = importlib.import_module("torch._dynamo.eval_frame")
            optimized, set_eval_frame = contexts.OptimizedModule, contexts._maybe_set_eval_frame
            frames: Any = importlib.import_module("torch._dynamo.convert_frame")
            capture, compile_frame = outputs.call_user_compiler, frames._compile
            trace_hooked_modules(stands_for_torchs_own)  # what the marks stand around
            _marks.install()
        except (ImportError, AttributeError):
            return False  # this version of torch is built differently: the inside of compiled modules stays unseen
        optimized.__call__ = _calling(optimized.__call__)
        outputs.call_user_compiler = _capturing(capture)
        frames._compile = _apart(compile_frame)
        contexts._maybe_set_eval_frame = _around(set_eval_frame)
        skip_package()
        see_compiled()
        return True


def _capturing(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call_user_compiler(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Has the program's compiler called through :class:`Captured`."""
        compiler = self.compiler_fn

        @functools.wraps(compiler)
        def captured(graph: Any, examples: Any) -> Any:
            return Captured(graph, examples, compiler)

        self.compiler_fn = captured
        try:
            return original(self, *args, **kwargs)
        finally:
            self.compiler_fn = compiler

    return call_user_compiler


def _calling(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Calls a compiled module: it is a call of the module that was compiled."""
        if thread.frame is None and not watched.any:
            return original(self, *args, **kwargs)
        module = self._modules["_orig_mod"]

        def inner(_module: Module, *args: Any, **kwargs: Any) -> Any:
            with getattr(sys.modules[type(self).__module__], "_set_in_optimized_module", contextlib.nullcontext)():
                return self._call_impl(*args, **kwargs)

        method = getattr(getattr(self.forward, "__wrapped__", None), "__func__", None)
        if method is None or is_seen(method):
            return inner(module, *args, **kwargs)  # the call of the module is seen there
        return call_module(module, args, kwargs, inner)

    return call


def _apart(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def compile_frame(*args: Any, **kwargs: Any) -> Any:
        """Compiles a frame. Operations and module calls meanwhile are not those of the model, so they are hidden."""
        give_back()
        frame = thread.frame
        if type(frame) is not Frame:
            return original(*args, **kwargs)
        thread.frame = frame.root.cold
        try:
            with hidden(True):
                return original(*args, **kwargs)
        except Exception as error:
            if not is_handlers(error) and not frame.seen:
                _note_uncompiled(frame, args[0] if args else None, error)
            raise
        finally:
            thread.frame = frame

    return compile_frame


def _note_uncompiled(frame: Frame, code: Any, error: Exception) -> None:
    """torch.compile has given up a function as a whole: Python runs it, and our dispatch key is hidden."""
    name = getattr(code, "co_qualname", getattr(code, "co_name", "a function"))
    why = str(error).partition("\n")[0]
    note(
        frame.root.session,
        f"{name}: torch.compile does not compile it ({why}); modules that it calls are seen, but operations that it"
        " calls itself are not",
    )


def _around(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def set_eval_frame(callback: Any) -> Any:
        """Has code from here on compiled by ``callback``, or not compiled, if ``callback`` is not a function.

        Compiled code is used again only if the thread's dispatch keys are those that it was compiled with. Our key
        is on or off depending on what is wanted of a run. So it is hidden wherever torch.compile may compare the
        keys, and shown where a graph is run operation by operation.
        """
        began = thread.compiled
        if began is not None and began[0] is sys._getframe(1):
            prior = original(callback)
            thread.in_compiled(None)
            hide(began[1])
            return prior
        if began is None and callable(callback) and (watched.any or thread.frame is not None):
            thread.in_compiled((sys._getframe(1), torch._C._dispatch_tls_is_dispatch_key_excluded(key())))
            hide(True)
        return original(callback)  # must be the last call here: later calls would themselves be compiled

    return set_eval_frame
