"""A module as it is called from another one inside a run (a scope), and the object of the library that describes it."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.nn import Module

from ._forwards import shown
from ._handle import Handle
from ._library import lib, made
from ._modules import Walk, at, class_name, is_script, itself, why_opaque
from ._native import native
from ._signature import Signature


class Attribute:
    """The attribute that holds a module: the holding module, and the name there. Another module may be assigned to it.
    ``holder`` is None for a module that no other module holds."""

    __slots__ = ("holder", "name")

    def __init__(self, holder: Module | None, name: str) -> None:
        self.holder = None if holder is None else weakref.ref(holder)
        self.name = name

    def holds(self, module: Module) -> bool:
        """Whether the attribute still holds the module."""
        if self.holder is None:
            return True
        holder = self.holder()
        if holder is None:
            return False
        modules = holder._modules  # a scripted module's has no get()
        held = modules[self.name] if self.name in modules else None  # noqa: SIM401
        return held is module or (held is not None and itself(held) is module)

    def modules(self) -> dict[str, Module] | None:
        """The dict that holds the module, if it is a plain dict."""
        holder = None if self.holder is None else self.holder()
        held = None if holder is None else holder._modules
        return held if isinstance(held, dict) else None


class _Below:
    """A cache of the paths of all modules below one module, by their ids. The first run asks for the path of every
    module, and a walk over all modules for each of them would take too long. The walk stops at the module that is asked
    for, mostly one of the first: whole walks below every module of a deep model would take too long, too."""

    def __init__(self, above: Module, nowhere: dict[int, weakref.ref[Module]] | None = None) -> None:
        self.key = id(above)
        # When the module is gone, another one may get its address, and so the same id. No code of Python's runs in this
        # callback: a signal handler's exception there would be printed and lost.
        self.above = weakref.ref(above, partial(_known.pop, self.key))
        self.paths: dict[int, str] = {}
        # Modules that are nowhere below it.
        self.nowhere: dict[int, weakref.ref[Module]] = {} if nowhere is None else nowhere
        self._walk = Walk(above)

    def path(self, module: Module) -> str | None:
        """The path of the module, if the walk finds it."""
        key = id(module)
        for path, part in self._walk.rest():
            if path:
                self.paths.setdefault(id(part), path)
            if id(part) == key and path:
                break
        _known[self.key] = self
        return self.paths.get(key)


# By the id of the module above.
_known: dict[int, _Below] = {}


def forget_paths() -> None:
    """Empties the cache. To be called when modules were added or moved."""
    _known.clear()


def find(above: Module | None, module: Module) -> tuple[str, Attribute]:
    """The attribute path of ``module`` below ``above``; empty where it has none."""
    if above is None:
        return "", Attribute(None, "")
    known = _known.get(id(above))
    if known is None or id(known.above()) != id(above):
        known = _Below(above)
    key = id(module)
    nowhere = known.nowhere.get(key)
    if nowhere is not None and nowhere() is module:
        return "", Attribute(None, "")
    path = known.paths.get(key)
    if path is None:
        # While the walk goes on, nobody else has it: neither another thread, nor the next call if an exception ends it.
        if _known.pop(id(above), None) is not known:
            known = _Below(above, known.nowhere)
        path = known.path(module)
    if path is None or at(above, path) is not module:
        known = _Below(above, known.nowhere)
        path = known.path(module)
        if path is None:
            known.nowhere[key] = weakref.ref(module)
            return "", Attribute(None, "")
    holder, _, name = path.rpartition(".")
    return path, Attribute(at(above, holder), name)


class _ScopeSlots:
    """The attributes of a scope that the extension reads."""

    __slots__ = ("address", "arguments", "forward", "held_as", "holder", "is_plain", "kind", "module", "signature")

    module: weakref.ref[Module]
    kind: type
    holder: weakref.ref[Module] | None
    held_as: str
    forward: Any
    signature: Signature
    arguments: Any
    address: int
    is_plain: int


if TYPE_CHECKING or native is None:
    _Base = _ScopeSlots
else:
    _Base = native.ScopeBase


class Scope(_Base):
    """A module as it is called from another one. Any number of calls on any thread may use it.

    Args:
        path: The module's attribute path below the nearest enclosing module that is called.
        absolute: Its attribute path below the root.
        opaque: Whether its inside cannot be seen.
    """

    __slots__ = ("attribute", "handle", "opaque")

    def __init__(
        self,
        module: Module,
        attribute: Attribute,
        path: str,
        absolute: str,
        opaque: bool,
        signature: Signature | None = None,
    ) -> None:
        self.signature = signature or Signature(module)
        self.module = weakref.ref(module)
        self.attribute = attribute
        self.opaque = opaque
        self.kind = type(module)
        self.holder, self.held_as = attribute.holder, attribute.name
        self.forward, self.arguments = shown(self.signature.forward), self.signature.arguments.plain
        # Whether the extension can decide by itself what `is_current` returns.
        self.is_plain = int(not opaque and not is_script(module))
        names = self.signature.arguments.texts
        described: tuple[Any, ...] = path.encode(), absolute.encode(), class_name(module).encode(), names, len(names)
        # The address of the library's object. Calls take it, since that is faster than passing the handle that owns it.
        self.address = made(lib.gp_scope_new, *described, opaque)
        self.handle = Handle(lib.gp_scope_free, self.address)

    def is_current(self, module: Module) -> bool:
        """Whether the module is still as it was when this scope was made."""
        self.forward = shown(self.signature.forward)
        return (
            self.module() is module
            and self.attribute.holds(module)
            and self.signature.fits(module)
            and self.opaque == (why_opaque(module) is not None)
        )
