"""``forward`` as a class of modules has it, such that a direct call of it in a run is a scope, as the module's call is.

Who asks the class gets the function that stands there, and who asks a module gets its method, unless a run is open on
the thread and the module is not the one whose scope is innermost: then the method opens the module's scope. A
``super().forward`` or ``self.forward`` of the innermost module is its own call and opens none.

torch.compile looks at what a class has. Before it compiles anything, every class has its own function back.
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
from ._thread import Frame, thread

# How a module is called: it, its arguments, and the function that the call comes down to.
Call = Callable[[Module, Any, Any, Callable[..., Any]], Any]

_lock = new_lock()
_compiles = False
# The classes that have one now.
_holders: list[type] = []


class Forward:
    """Stands in a class for its ``forward``. A module that has a ``forward`` of its own is not affected."""

    __slots__ = ("call", "function", "seen")

    def __init__(self, function: types.FunctionType, call: Call) -> None:
        def forward(self: Module, /, *args: Any, **kwargs: Any) -> Any:
            return call(self, args, kwargs, function) if _is_direct(self) else function(self, *args, **kwargs)

        skip(forward.__code__)
        functools.update_wrapper(forward, function)
        self.call, self.function, self.seen = call, function, forward

    def __get__(self, module: Module | None, kind: type | None = None) -> Any:
        if module is None:
            return self.function
        return types.MethodType(self.seen if _is_direct(module) else self.function, module)

    def __reduce__(self) -> Any:
        # Whoever pickles the class itself gets the function.
        return operator.itemgetter(0), ((self.function,),)


def direct_call(module: Module) -> Call | None:
    """How a call of the module's ``forward`` by the code at work becomes its scope, whatever ``forward`` of its own the
    module has; None if it is no direct call of one that is seen."""
    standing = inspect.getattr_static(type(module), "forward", None)
    return standing.call if type(standing) is Forward and _is_direct(module) else None


def _is_direct(module: Module) -> bool:
    frame = thread.frame
    return type(frame) is Frame and frame.module is not module


def install(kinds: set[type], call: Call) -> bool:
    """Has direct calls of the classes' ``forward`` seen. Whether that could be done."""
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
    """Every class has its own function again, for good."""
    global _compiles
    if _compiles:
        return
    with _lock:
        _compiles = True
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


# Where torch.compile starts with the first function that it meets, that is none of these.
for function in (Forward.__get__, _is_direct):
    skip(function.__code__)
