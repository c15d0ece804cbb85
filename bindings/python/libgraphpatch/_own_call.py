"""Classes of modules with a ``__call__`` of their own, which do not come by torch's."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from torch.nn import Module

from ._locks import new_lock
from ._modules import below

# Those that are seen.
_seen: set[Any] = set()
_lock = new_lock()


def _holder(kind: type) -> type:
    """The class that has the ``__call__`` of ``kind``."""
    return next((above for above in kind.__mro__ if "__call__" in vars(above)), Module)


def _own(kind: type) -> Any:
    return vars(_holder(kind)).get("__call__")


def own_calls(module: Module, seeing: Callable[[Any], Any]) -> None:
    """A ``__call__`` of its own that a class of modules below ``module`` has becomes what ``seeing`` makes of it, once.
    One that calls torch's is left alone: its call is seen there."""
    for kind in {type(part) for _, part in below(module)}:
        holder, own = _holder(kind), _own(kind)
        if holder is Module or holder.__module__.startswith("torch.") or not isinstance(own, types.FunctionType):
            continue
        with _lock:
            if own not in _seen and "__call__" not in own.__code__.co_names:
                seen = seeing(own)
                setattr(holder, "__call__", seen)  # noqa: B010
                _seen.add(seen)


def entry(module: Module) -> Any:
    """The function that a call of ``module`` comes down to, whose arguments are the call's."""
    kind = type(module)
    if _own(kind) in _seen:
        return module.__call__
    if kind.__name__ == "OptimizedModule" and hasattr(module, "_orig_mod"):
        return module._orig_mod.forward  # a compiled one takes what its module takes
    return module.forward
