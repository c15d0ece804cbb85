"""Classes of modules with a ``__call__`` of their own that does not call torch's."""

from __future__ import annotations

import dis
import types
from collections.abc import Callable
from typing import Any

from torch.nn import Module

from ._handle import Handle
from ._locks import new_lock
from ._modules import below, note

# The wrapped ``__call__`` functions.
_seen: set[Any] = set()
_lock = new_lock()


def _holder(kind: type) -> type:
    """The class that has the ``__call__`` of ``kind``."""
    return next((above for above in kind.__mro__ if "__call__" in vars(above)), Module)


def _own(kind: type) -> Any:
    """The ``__call__`` that ``kind``, or a class above it, defines; None if that class is torch's."""
    holder = _holder(kind)
    return None if holder is Module or holder.__module__.startswith("torch.") else vars(holder)["__call__"]


def _is_wrapped(own: Any) -> bool:
    return any(own is seen for seen in _seen)  # it may have no hash


def is_unseen(kind: type) -> bool:
    """Whether the ``__call__`` of a class is an object that cannot be wrapped."""
    own = _own(kind)
    return own is not None and not isinstance(own, types.FunctionType) and not _is_wrapped(own)


def own_calls(
    module: Module,
    session: Handle | None,
    seeing: Callable[[Any], Any],
    which: Callable[[Module], bool] = lambda _: True,
) -> None:
    """Wraps, by ``seeing``, the ``__call__`` that classes of modules below ``module`` define themselves; each once. A
    ``__call__`` that calls torch's is left alone, since torch's call is seen.

    Args:
        which: Whether the class of a module is meant.
    """
    for kind in {type(part) for _, part in below(module) if which(part)}:
        own = _own(kind)
        if is_unseen(kind):
            what = f"{kind.__module__}.{kind.__qualname__}: its `__call__` is no function"
            note(session, f"{what}, so its calls are not seen; what they do is listed in the scope around them")
        if not isinstance(own, types.FunctionType):
            continue
        with _lock:
            if not _is_wrapped(own) and not _calls_torchs(own, kind, set()):
                seen = seeing(own)
                setattr(_holder(kind), "__call__", seen)  # noqa: B010
                _seen.add(seen)


def _calls_torchs(own: types.FunctionType, kind: type, looked_at: set[Any]) -> bool:
    """Whether a ``__call__`` of ``kind`` may call torch's, perhaps by a function that it decorates or by a method. One
    that it looks up in a class that is no module's (as vLLM's wrapper of compiled code) is not torch's."""
    looked_at.add(own)
    holder: Any = None
    further = [cell.cell_contents for cell in own.__closure__ or () if not _is_empty(cell)]
    for instruction in dis.get_instructions(own):
        if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
            if instruction.argval == "__call__":
                named = own.__globals__.get(holder) if isinstance(holder, str) else None
                if not isinstance(named, type) or issubclass(Module, named) or issubclass(named, Module):
                    return True
            elif instruction.argval != "forward":
                further.append(_method(kind, instruction.argval))
        holder = instruction.argval if instruction.opname == "LOAD_GLOBAL" else None
    return any(
        isinstance(one, types.FunctionType) and one not in looked_at and _calls_torchs(one, kind, looked_at)
        for one in further
    )


def _is_empty(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is None
    except ValueError:
        return True


def _method(kind: type, name: str) -> Any:
    """The method of this name, if it calls `super().__call__`."""
    method = next((vars(above)[name] for above in kind.__mro__ if name in vars(above)), None)
    named = method.__code__.co_names if isinstance(method, types.FunctionType) else ()
    return method if {"super", "__call__"} <= {*named} else None


def entry(module: Module) -> Any:
    """The function that gets the arguments of a call of ``module``: as a rule its ``forward``."""
    kind = type(module)
    if _is_wrapped(_own(kind)):
        return module.__call__
    if kind.__name__ == "OptimizedModule" and hasattr(module, "_orig_mod"):
        return module._orig_mod.forward  # a compiled module takes the arguments of the original one
    return module.forward
