"""A descriptor that takes the place of ``forward`` in a class of modules, so that a direct call of it in a run becomes
a scope, as a call of the module does.

A look-up in the class gives the original function. A look-up in a module gives its method. If a run is open on the
thread and the innermost scope is that of another module, the method opens the module's scope. ``super().forward`` or
``self.forward`` of the module whose scope is innermost belongs to that module's own call and opens none.

torch.compile reads ``forward`` from the class. So before it compiles anything, every class gets its original function
back.
"""

from __future__ import annotations

import functools
import inspect
import operator
import sys
import types
from collections.abc import Callable
from typing import Any

from torch.nn import Module

from . import _forwards
from ._dynamo import before_the_first_compilation, skip
from ._locks import new_lock
from ._native import native
from ._thread import Frame, thread

# A function that calls a module. It takes the module, its two kinds of arguments, and the function to call in the end.
Call = Callable[[Module, Any, Any, Callable[..., Any]], Any]

_lock = new_lock()
_compiles = False
# The classes whose `forward` is replaced now.
_holders: list[type] = []


class Forward:
    """Takes the place of ``forward`` in a class. A module whose ``forward`` is set on the object is not affected."""

    __slots__ = ("call", "function", "seen")

    def __init__(self, function: types.FunctionType, call: Call) -> None:
        def forward(self: Module, /, *args: Any, **kwargs: Any) -> Any:
            return call(self, args, kwargs, function) if _is_direct(self) else function(self, *args, **kwargs)

        skip(forward.__code__)
        functools.update_wrapper(forward, function)
        self.call, self.function = call, function
        # The function that a module shows.
        self.seen: Any = forward
        if native is not None:
            self.seen = native.module_call(native.ModuleCall, function, forward, False, True)

    def __get__(self, module: Module | None, kind: type | None = None) -> Any:
        if module is None:
            return self.function
        return types.MethodType(self.seen if _is_direct(module) else self.function, module)

    def __reduce__(self) -> Any:
        # If the class itself is pickled by value, the original function is pickled.
        return operator.itemgetter(0), ((self.function,),)


def direct_call(module: Module) -> Call | None:
    """The function that makes a call of the module's ``forward`` a scope, also if ``forward`` is set on the object.
    None if the call would not be a direct one, or if the class is not watched."""
    standing = inspect.getattr_static(type(module), "forward", None)
    return standing.call if type(standing) is Forward and _is_direct(module) else None


def _is_direct(module: Module) -> bool:
    frame = thread.frame
    return type(frame) is Frame and frame.module is not module


def install(kinds: set[type], call: Call) -> bool:
    """Makes direct calls of the classes' ``forward`` scopes. False if that is not possible, as torch.compile is in
    use."""
    if not _compiles and not _has_compiled():
        before_the_first_compilation(give_back)
    with _lock:
        if _compiles or _has_compiled():
            return False
        for kind in kinds:
            holders = [above for above in kind.__mro__ if "forward" in vars(above)]
            for holder in holders:
                function = vars(holder)["forward"]
                if holder is not Module and type(function) is types.FunctionType:
                    standing = Forward(function, call)
                    _forwards.pair(function, standing.seen)
                    holder.forward = standing  # type: ignore[attr-defined]
                    _holders.append(holder)
        return True


def give_back() -> None:
    """Gives every class its original function back, for good."""
    global _compiles
    if _compiles:
        return
    with _lock:
        _compiles = True
        _restore()


def uninstall() -> None:
    """Gives every class its original function back, until the next :func:`install`."""
    with _lock:
        _restore()


def _restore() -> None:
    for holder in _holders:
        standing = vars(holder).get("forward")
        if type(standing) is Forward:
            holder.forward = standing.function  # type: ignore[attr-defined]
    _holders.clear()
    _forwards.forget()


def _has_compiled() -> bool:
    """Whether torch.compile has compiled something in this process."""
    utils = sys.modules.get("torch._dynamo.utils")
    return utils is not None and bool(utils.counters["frames"])


# torch.compile must not begin with one of these functions, as it would with the first one that is called.
for function in (Forward.__get__, _is_direct):
    skip(function.__code__)
