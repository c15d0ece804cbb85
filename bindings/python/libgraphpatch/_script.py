"""Calls of TorchScript modules. These report their calls of modules to the library themselves. They call no Python
modules, so nothing that happens in Python inside such a call becomes a scope."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import Module

from ._library import check, lib
from ._operators import operator
from ._root import Cold
from ._thread import Frame, thread

_IN_SCRIPT = Cold()


def prepare(module: Module) -> bool:
    """Makes a scripted module report its calls. False if that is not possible."""
    return bool(operator("prepare")(module))


def prepared(module: Module) -> bool:
    """Whether a module is a scripted one that reports its calls."""
    return isinstance(module, torch.jit.ScriptModule) and prepare(module)


def _call_prepared(module: Module, args: Any, kwargs: Any, call: Callable[..., Any]) -> Any:
    """Calls a scripted module that was prepared, by ``call``."""
    optimized = operator("optimize")(False)
    try:
        return call(module, *args, **kwargs)
    finally:
        operator("optimize")(optimized)


def call_script(module: Module, args: Any, kwargs: Any, call: Callable[..., Any]) -> Any:
    """Calls a scripted module, by ``call``, so that it reports its calls."""
    prepare(module)
    return _call_prepared(module, args, kwargs, call)


def run_script(module: Module, args: Any, kwargs: Any, call: Callable[..., Any]) -> Any:
    """A call of a scripted module that is a root."""
    outer = thread.frame
    thread.frame = outer or _IN_SCRIPT
    try:
        return call_script(module, args, kwargs, call)
    finally:
        thread.frame = outer


def script_scope(frame: Frame, module: Module, args: Any, kwargs: Any, call: Callable[..., Any]) -> Any:
    """A call of a scripted module that was prepared, inside a run of Python's."""
    scope = frame.scope(module)
    depth = ctypes.c_uint32()
    check(lib.gp_scope_script(scope.address, ctypes.byref(depth)))
    thread.frame = frame.root.cold
    try:
        return _call_prepared(module, args, kwargs, call)
    finally:
        thread.frame = frame
        check(lib.gp_scope_unwind(depth))
