"""Direct calls of another module's ``forward``, without calling the module itself. They become scopes, as calls of the
module are. If that is not possible, a note says so.

Whether a class makes such calls is found out from its bytecode, and from that of the functions of its own package that
it names. ``super().forward``, ``self.forward`` and ``Base.forward`` are calls of the same module, and belong to its
scope.
"""

from __future__ import annotations

import dis
import types
from collections.abc import Iterator
from typing import Any

from torch.nn import Module

from ._code import nested
from ._forward_scope import Call, Forward, install
from ._gone import OfObjects
from ._kinds import is_a
from ._modules import below, class_name, is_script, note
from ._root import Root

# Instructions that load no object. They may stand between the one that loads an object and the one that looks up its
# attribute.
_BETWEEN = {"CACHE", "PRECALL", "PUSH_NULL", "NOP", "EXTENDED_ARG", "RESUME", "COPY_FREE_VARS"}

# For each class, the names of its methods that make such calls.
_known = OfObjects()


def see_direct_calls(root: Root, call: Call) -> None:
    """If modules below the root's make direct calls of ``forward``, has these calls made by ``call``."""
    module = root.module()
    if module is None:
        return
    modules = {id(part): part for _, part in below(module) if not is_script(part)}
    methods = [method for kind in {type(part) for part in modules.values()} for method in _methods(kind)]
    if not methods:
        return
    for part in list(modules.values()):
        modules.update((id(held), held) for held in _unregistered(part))
    if not install({type(part) for part in modules.values()}, call):
        for method in methods:
            note(
                root.session,
                f"{method}: calls the `forward` of another module, not the module: with torch.compile in this process"
                " such a call is no scope, and what it does is listed in the scope around it",
            )
        return
    for kind in {class_name(part) for part in modules.values() if "forward" in vars(part)}:
        note(
            root.session,
            f"{kind}: one of its objects has a `forward` of its own: where that is called directly, the call is no"
            " scope, and what it does is listed in the scope around it",
        )


def _unregistered(module: Module) -> Iterator[Module]:
    """Modules that ``module`` holds in plain objects, with all below them."""
    waiting = [(value, 3) for name, value in vars(module).items() if not name.startswith("_")]
    while waiting:
        value, depth = waiting.pop()
        if is_a(value, Module):
            yield from (part for _, part in below(value) if not is_script(part))
        elif is_a(value, (list, tuple)) and depth:
            kind: Any = list if is_a(value, list) else tuple
            waiting += [(item, depth - 1) for item in kind.__getitem__(value, slice(100))]
        elif is_a(value, dict) and depth:
            waiting += [(item, depth - 1) for item in list(dict.values(value))[:100]]
        elif depth and isinstance(type(value).__dict__.get("__dict__"), types.GetSetDescriptorType):
            waiting += [(item, depth - 1) for item in list(object.__getattribute__(value, "__dict__").values())[:100]]


def _methods(kind: type) -> list[str]:
    """The names of the methods of a class of modules, and of its bases, that call another module's ``forward``."""
    known: list[str] | None = _known.get(kind)
    if known is None:
        known = [
            function.__qualname__.rpartition("<locals>.")[2]
            for base in kind.__mro__
            if issubclass(base, Module) and not base.__module__.startswith("torch.")
            for function in map(_own, vars(base).values())
            if isinstance(function, types.FunctionType) and any(map(_is_direct, _all_codes(function, set())))
        ]
        _known.put(kind, known)
    return known


def _own(value: Any) -> Any:
    """The function of the class, where a subclass was seen before and ours stands in its place."""
    return value.function if type(value) is Forward else value


def _all_codes(function: Any, known: set[Any]) -> Iterator[types.CodeType]:
    """The code of a function, of those that it wraps or names in its own package, and of what is defined in them."""
    while isinstance(function, types.FunctionType) and function not in known:
        known.add(function)
        package = function.__module__.partition(".")[0] if function.__module__ else ""
        for code in nested(function.__code__):
            yield code
            for name in code.co_names:
                named = function.__globals__.get(name)
                if isinstance(named, types.FunctionType) and (named.__module__ or "").partition(".")[0] == package:
                    yield from _all_codes(named, known)
        function = getattr(function, "__wrapped__", None)


def _is_direct(code: types.CodeType) -> bool:
    if "forward" not in code.co_names:
        return False
    instructions = list(dis.get_instructions(code))
    if any(one.opname == "STORE_ATTR" and one.argval == "forward" for one in instructions):
        return False  # the code assigns `forward`: it replaces the function and does not mean a direct call
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
    """Whether the object that the instruction loads is the module itself (``self``, ``super()``) or a class."""
    if holder.opname.startswith("CALL"):
        return "super" in code.co_names
    name = holder.argval[-1] if isinstance(holder.argval, tuple) else holder.argval
    return isinstance(name, str) and (name in ("self", "cls", "super") or name[:1].isupper())
