"""Calls of another module's ``forward`` that go past the module's call: what they do has no scope of its own, which is
said.

Whether a class makes such calls is read from its code. ``super().forward``, ``self.forward`` and ``Base.forward`` are
calls of the same module, and belong to its scope.
"""

from __future__ import annotations

import dis
import types
import weakref
from collections.abc import Iterator
from typing import Any

from torch.nn import Module

from ._code import nested
from ._modules import below, note
from ._root import Root

# Instructions that move nothing: between what is looked up and where.
_BETWEEN = {"CACHE", "PRECALL", "PUSH_NULL", "NOP", "EXTENDED_ARG", "RESUME", "COPY_FREE_VARS"}

# By class: its methods that make such calls.
_known: weakref.WeakKeyDictionary[type, list[str]] = weakref.WeakKeyDictionary()


def tell_of_direct_calls(root: Root) -> None:
    """Notes the methods of modules below the root's that call another module's ``forward`` directly."""
    module = root.module()
    if module is None:
        return
    for kind in {type(part) for _, part in below(module)}:
        for method in methods_with_direct_calls(kind):
            note(
                root.session,
                f"{method}: calls the `forward` of another module, not the module: such a call is no scope, and what it"
                " does is listed in the scope around it",
            )


def methods_with_direct_calls(kind: type) -> list[str]:
    """The names of the methods of a class of modules, and of its bases, that call another module's ``forward``."""
    known = _known.get(kind)
    if known is None:
        known = _known[kind] = [
            function.__qualname__.rpartition("<locals>.")[2]
            for base in kind.__mro__
            if issubclass(base, Module) and not base.__module__.startswith("torch.")
            for function in vars(base).values()
            if isinstance(function, types.FunctionType) and any(map(_is_direct, _all_codes(function)))
        ]
    return known


def _all_codes(function: Any) -> Iterator[types.CodeType]:
    """The code of a function, of those that it wraps, and of what is defined in them."""
    while isinstance(function, types.FunctionType):
        yield from nested(function.__code__)
        function = getattr(function, "__wrapped__", None)


def _is_direct(code: types.CodeType) -> bool:
    if "forward" not in code.co_names:
        return False
    instructions = list(dis.get_instructions(code))
    if any(one.opname == "STORE_ATTR" and one.argval == "forward" for one in instructions):
        return False  # it puts another function in its place
    holder: dis.Instruction | None = None
    for instruction in instructions:
        if instruction.opname in _BETWEEN:
            continue
        looks_up = instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and instruction.argval == "forward"
        if looks_up and holder is not None and not _is_same_module(holder, code):
            return True
        holder = instruction
    return False


def _is_same_module(holder: dis.Instruction, code: types.CodeType) -> bool:
    """Whether what the instruction leaves is the module itself (``self``, ``super()``) or a class."""
    if holder.opname.startswith("CALL"):
        return "super" in code.co_names
    name = holder.argval[-1] if isinstance(holder.argval, tuple) else holder.argval
    return isinstance(name, str) and (name in ("self", "cls", "super") or name[:1].isupper())
