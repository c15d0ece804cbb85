"""A module as it is called from another one inside a run: a scope, with the library's picture of it."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from torch.nn import Module

from ._forwards import shown
from ._library import Handle, lib, made, texts
from ._modules import at, below, class_name, is_script, itself, why_opaque
from ._native import native
from ._signature import Signature


class Attribute:
    """Where a module hangs: its name in the module that holds it, which may get another one there. It hangs nowhere if
    there is no such module."""

    __slots__ = ("holder", "name")

    def __init__(self, holder: Module | None, name: str) -> None:
        self.holder = None if holder is None else weakref.ref(holder)
        self.name = name

    def holds(self, module: Module) -> bool:
        """Whether the module still hangs there."""
        if self.holder is None:
            return True
        holder = self.holder()
        if holder is None:
            return False
        modules = holder._modules  # a scripted module's has no get()
        held = modules[self.name] if self.name in modules else None  # noqa: SIM401
        return held is module or (held is not None and itself(held) is module)

    def modules(self) -> dict[str, Module] | None:
        """What holds it, if that is a plain dict."""
        holder = None if self.holder is None else self.holder()
        held = None if holder is None else holder._modules
        return held if isinstance(held, dict) else None


class _Below:
    """What is known of the modules below one: the first path of each, by its id, and which modules have none there. A
    first run asks for the path of every module, and may not walk over all of them each time."""

    def __init__(self, above: Module) -> None:
        key = id(above)
        # The address may be another module's afterwards.
        self.above = weakref.ref(above, lambda _: _known.pop(key, None))
        self.paths: dict[int, str] = {}
        before = _known.get(key)
        self.nowhere: dict[int, weakref.ref[Module]] = {} if before is None else before.nowhere
        for path, part in below(above):
            if path:
                self.paths.setdefault(id(part), path)
        _known[key] = self


# By the id of the module above.
_known: dict[int, _Below] = {}


def forget_paths() -> None:
    """Modules were added, or hang elsewhere."""
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
    if path is None or at(above, path) is not module:
        known = _Below(above)
        path = known.paths.get(key)
        if path is None:
            known.nowhere[key] = weakref.ref(module)
            return "", Attribute(None, "")
    holder, _, name = path.rpartition(".")
    return path, Attribute(at(above, holder), name)


class _Places:
    """What the extension reads of a scope."""

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
    _Base = _Places
else:
    _Base = native.ScopeBase


class Scope(_Base):
    """A module as it is called from another one. Any number of calls on any thread may use it.

    Args:
        path: The module's attribute path below the nearest enclosing module that is called.
        absolute: The one below the root.
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
        self.forward, self.arguments = shown(self.signature.forward), self.signature.plain
        # Whether nothing else has to be asked for is_current.
        self.is_plain = int(not opaque and not is_script(module))
        names = texts(self.signature.names)
        described: tuple[Any, ...] = path.encode(), absolute.encode(), class_name(module).encode(), names, len(names)
        # What calls take each time: quicker than the handle that owns it.
        self.address = made(lib.gp_scope_new, *described, opaque)
        self.handle = Handle(lib.gp_scope_free, self.address)

    def is_current(self, module: Module) -> bool:
        """Whether the module still is what this was made of."""
        self.forward = shown(self.signature.forward)
        return (
            self.module() is module
            and self.attribute.holds(module)
            and self.signature.fits(module)
            and self.opaque == (why_opaque(module) is not None)
        )
