"""Classes of modules with a ``__call__`` of their own that does not call torch's."""

from __future__ import annotations

import dis
import types
from collections.abc import Callable
from typing import Any

from torch.nn import Module

from ._locks import new_lock
from ._modules import below

# The wrapped ``__call__`` functions.
_seen: set[Any] = set()
_lock = new_lock()


def _holder(kind: type) -> type:
    """The class that has the ``__call__`` of ``kind``."""
    return next((above for above in kind.__mro__ if "__call__" in vars(above)), Module)


def _own(kind: type) -> Any:
    return vars(_holder(kind)).get("__call__")


def own_calls(module: Module, seeing: Callable[[Any], Any]) -> None:
    """Wraps, by ``seeing``, the ``__call__`` that classes of modules below ``module`` define themselves; each once. A
    ``__call__`` that calls torch's is left alone, since torch's call is seen."""
    for kind in {type(part) for _, part in below(module)}:
        holder, own = _holder(kind), _own(kind)
        if holder is Module or holder.__module__.startswith("torch.") or not isinstance(own, types.FunctionType):
            continue
        with _lock:
            if own not in _seen and not _calls_torchs(own):
                seen = seeing(own)
                setattr(holder, "__call__", seen)  # noqa: B010
                _seen.add(seen)


def _calls_torchs(own: types.FunctionType) -> bool:
    """Whether a ``__call__`` may call torch's. One that it looks up in a class that is no module's (as vLLM's wrapper
    of compiled code) is not torch's."""
    holder: Any = None
    for instruction in dis.get_instructions(own):
        if instruction.argval == "__call__" and instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            named = own.__globals__.get(holder) if isinstance(holder, str) else None
            if not isinstance(named, type) or issubclass(Module, named) or issubclass(named, Module):
                return True
        holder = instruction.argval if instruction.opname == "LOAD_GLOBAL" else None
    return False


def entry(module: Module) -> Any:
    """The function that gets the arguments of a call of ``module``: as a rule its ``forward``."""
    kind = type(module)
    if _own(kind) in _seen:
        return module.__call__
    if kind.__name__ == "OptimizedModule" and hasattr(module, "_orig_mod"):
        return module._orig_mod.forward  # a compiled module takes the arguments of the original one
    return module.forward
