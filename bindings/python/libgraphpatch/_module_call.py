"""Calls of modules. All of them go through ``torch.nn.Module.__call__``.

It is replaced once, when the first root is watched. After that, a call on a thread without a run costs one test more.
Inside a run, a call is a scope of the library's. A call that no patch can affect is left alone, with everything below
it. No module is changed. If the class of a module below a root has a ``__call__`` of its own, that is wrapped, too.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import Module

from . import _distributed, _dynamo, _exchanged, _own_backward
from ._absent import note_absent_parameters
from ._call_values import Settle, changed_inputs, changed_output, fail_value, show_inputs, show_output
from ._direct_forward import see_direct_calls
from ._dispatch_key import let_higher_order_through
from ._header import GP_WANTS_INPUTS, GP_WANTS_OUTPUT
from ._hooked import GLOBAL, is_hooked
from ._library import fail
from ._locks import new_lock
from ._modules import class_name, is_handlers, note
from ._native import native
from ._own_call import own_calls
from ._part import in_method_of, run_part
from ._root import Cold, Root
from ._run import (
    COUNTS,
    begin,
    begin_hooked,
    end,
    end_hooked,
    enter,
    failed,
    hooked,
    ignore,
    leave,
    nested,
    run,
    scope,
)
from ._scope import Scope
from ._script import prepared, script_scope
from ._thread import Frame, thread
from ._watched import watched

# torch's own __call__, or the function that another package had put in its place before.
_original: Any = None
# The object that stands in its place.
_call: Any = None
_lock = new_lock()
_TORCHS = "_wrapped_call_impl"


def watch(root: Root) -> None:
    """Calls of the root's module are runs from now on."""
    install()
    root.refresh()
    module = root.module()
    if module is not None and root.known_classes is not root.tree:
        own_calls(module, root.session, _seeing)
        root.refresh()  # the `__call__` of its class may have been replaced
        root.known_classes = root.tree
        see_direct_calls(root, call_module)
        note_absent_parameters(root)
    watched.add(root)


def see_uncompiled_calls(root: Root) -> None:
    """Has calls of modules below the root's seen whose class has a ``__call__`` of its own and that vLLM's decorator
    for compilation has marked as not to be compiled. Others may be compiled later, which fails at a ``__call__`` of
    ours."""
    module = root.module()
    if module is not None:
        own_calls(module, root.session, _seeing, lambda part: vars(part).get("do_not_compile") is True)
        root.refresh()


def watch_outermost(make: Callable[[Module], Root | None]) -> None:
    """From now on ``make`` is asked for a root of every module that is called outside of a run."""
    watched.make_roots(make)
    install()


def install() -> None:
    """Puts a function of ours in the place of ``torch.nn.Module.__call__``, once."""
    global _call, _original
    with _lock:
        if _original is not None:
            # Another package has replaced `__call__` for a while, and then put back the function that it had looked
            # up; or `uninstall` has put back the original.
            if vars(Module)["__call__"] in (_call.__get__(None, Module), _original):
                Module.__call__ = _call
            return
        _original = Module.__call__
        _own_backward.install()
        _exchanged.install()
        _distributed.install()
        if native is not None:
            _configure()
        call = _call = _seeing(_original)
        Module.__call__ = call
        function: Any = Module.__call__
        # The function is pickled by this name; the original has another one.
        function.__qualname__ = "Module.__call__"
        let_higher_order_through()
        _dynamo.take_for_torchs_own(call)
        _dynamo.inline_as(call, _original)


def uninstall() -> None:
    """Puts torch's own ``__call__`` back, unless another package has replaced ours or a root is watched. Does nothing
    before :func:`install`."""
    with _lock:
        if _original is not None and vars(Module)["__call__"] is _call and not watched.any:
            Module.__call__ = _original


def is_seen(function: Any) -> bool:
    """Whether ``function``, which is the ``__call__`` of some module, is ours, so that calls by it are seen."""
    return None not in (function, _call) and function in (_call, _call.__get__(None, Module))


def stands_for_torchs_own(function: Any) -> bool:
    """Whether ``function`` is ours, and calls what torch has as ``Module.__call__``."""
    return is_seen(function) and _original is vars(Module).get(_TORCHS)


def _configure() -> None:
    """Gives the extension the Python objects that it needs, in the order of src/library/python/state.rs."""
    native.configure(
        *(Frame, torch.Tensor, types.MethodType, watched.roots, inspect.Parameter.empty, COUNTS),
        *(_begin, end, failed, _call_root),
        *(
            _scope_of,
            ignore,
            show_inputs,
            changed_inputs,
            show_output,
            changed_output,
            fail,
            fail_value,
            begin_hooked,
            end_hooked,
            GLOBAL,
            thread.settle,
        ),
    )


def _begin(module: Module) -> Any:
    """Begins the run of a call outside of any run, as src/library/python/state.rs describes."""
    root: Any = _root(module, None)
    if root is None:
        return None
    begun = begin(root, module, sys._getframe(1)) if root.is_direct(module) else None
    return (root,) if begun is None else begun


def _scope_of(frame: Frame, module: Module) -> Scope | None:
    """The scope of ``module`` when it is called from ``frame``. None after an error: Python then makes the call, and
    meets the same error."""
    try:
        return frame.scope(module)
    except Exception as error:
        if is_handlers(error):
            raise
        return None


def _seeing(original: Callable[..., Any]) -> Any:
    """``original``, which is the ``__call__`` of modules, wrapped so that calls are seen."""
    call = _seeing_in_python(original)
    _dynamo.skip(call.__code__)
    functools.update_wrapper(call, original)
    if native is None:
        return call
    return native.module_call(native.ModuleCall, original, call, original is Module.__dict__.get(_TORCHS), False)


def _seeing_in_python(original: Callable[..., Any]) -> Any:
    """The same in Python, for use without the extension, and for calls that the extension leaves to Python. Python
    limits how deep calls nest. So this function takes the place of torch's own ``_wrapped_call_impl``, and no other
    function of ours is on the stack while the module runs."""
    # torch's own __call__ chooses between the compiled and the ordinary call; so does ours in its place.
    steps_over = original is Module.__dict__.get(_TORCHS)

    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        direct = steps_over and self._compiled_call_impl is None
        if not watched.any:
            return self._call_impl(*args, **kwargs) if direct else original(self, *args, **kwargs)
        frame = thread.frame
        if frame is None or watched.several:
            root = _root(self, frame)
            if root is not None:
                return _call_root(root, frame, self, args, kwargs, original)
        if type(frame) is not Frame:
            if frame is not None:
                thread.settle()
            return self._call_impl(*args, **kwargs) if direct else original(self, *args, **kwargs)
        known = frame.ignored.get(id(self))
        is_ignored = known is not None and known[0] is self and known[1].get(known[2]) is self
        if is_ignored:
            thread.settle()
            thread.frame = frame.root.cold
            try:
                return self._call_impl(*args, **kwargs) if direct else original(self, *args, **kwargs)
            finally:
                thread.frame = frame
                thread.settle()
        if prepared(self):
            return script_scope(frame, self, args, kwargs, original)
        wants, signature = enter(frame, self)
        over: Settle = None
        try:
            if wants & GP_WANTS_INPUTS:
                args, kwargs, over = show_inputs(frame, self, signature, args, kwargs)
            if wants & GP_WANTS_OUTPUT and is_hooked(self):
                return hooked(frame, self, args, kwargs, original)
            output = self._call_impl(*args, **kwargs) if direct else original(self, *args, **kwargs)
            if wants & GP_WANTS_OUTPUT:
                # If reference counts can be trusted and only this function holds the output, it may be changed in
                # place.
                owned = COUNTS and type(output) is torch.Tensor and sys.getrefcount(output) <= 2
                output = show_output(frame, output, owned)
            return output
        finally:
            if over is not None:
                over()
            leave(frame)

    return call


def call_module(module: Module, args: Any, kwargs: Any, inner: Callable[..., Any]) -> Any:
    """Makes a call of ``module`` by ``inner``, which gets the module as its first argument. It becomes a run or a scope
    as a call by torch would."""
    frame = thread.frame
    if frame is None or watched.several:
        root = _root(module, frame) if watched.any else None
        if root is not None:
            return _call_root(root, frame, module, args, kwargs, inner)
    if type(frame) is not Frame:
        return inner(module, *args, **kwargs)
    return scope(frame, module, args, kwargs, inner)


def _call_root(
    root: Root, frame: Frame | Cold | None, module: Module, args: Any, kwargs: Any, call: Callable[..., Any]
) -> Any:
    if type(frame) is Frame:
        return nested(root, frame, module, args, kwargs, call)
    if root.module() is not module:
        return run_part(root, module, args, kwargs, call)
    return run(root, module, args, kwargs, call)


def _root(module: Module, frame: Frame | Cold | None) -> Root | None:
    """The root of which a call of ``module`` in ``frame`` is a run, if any."""
    if torch.compiler.is_compiling():  # torch.compile traces the module itself
        return None
    roots = watched.roots.get(id(module), ())
    if not roots:
        if frame is None and watched.outermost is not None:
            return watched.outermost(module)
        if frame is None and not thread.apart:
            return _root_around(module)
        return None
    if any(root.module() is not module or _is_of(frame, root) for root in roots):
        return None  # the module calls itself
    return watched.choose(module, roots)


def _is_of(frame: Frame | Cold | None, root: Root) -> bool:
    return frame is root.cold or (type(frame) is Frame and frame.root is root)


def _root_around(module: Module) -> Root | None:
    """The root in a run of which a call of ``module`` belongs, although no run is open. If the call should be seen but
    cannot be, the session gets a note."""
    roots = watched.all()
    around = [root for root in roots if root.session is not None and root.has(module)]
    for root in around:
        if root.open:
            note(
                root.session,
                f"{class_name(module)}: called during a run, but on another thread, where nothing is recorded or"
                " patched",
            )
            return None
    asked = thread.asked
    for root in reversed(around):
        # The module may have several PatchableGraphs, and another one than this root's is being called.
        others = asked is not None and asked is not root and asked.module() is root.module()
        if not others and in_method_of(root.module()):
            return root
    return None
