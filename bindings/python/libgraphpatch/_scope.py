"""A module as it is called from another one inside a run: a scope, with the library's picture of it."""

from __future__ import annotations

import weakref
from typing import Any

from torch.nn import Module

from ._library import Handle, lib, made, texts
from ._modules import class_name, why_opaque
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
        return held is module or getattr(held, "_module", None) is module  # a PatchableGraph of it

    def modules(self) -> dict[str, Module] | None:
        """What holds it, if that is a plain dict."""
        holder = None if self.holder is None else self.holder()
        held = None if holder is None else holder._modules
        return held if isinstance(held, dict) else None


# For each module that was looked through, by its id: a weak reference to it, and the first path of each module below
# it, by id. A first run asks for the path of every module, and may not walk over all of them each time.
_paths: dict[int, tuple[weakref.ref[Module], dict[int, str]]] = {}


def _paths_below(above: Module) -> dict[int, str]:
    """The first path of each module below ``above``, by its id, as they are now."""
    paths: dict[int, str] = {}
    for path, below in above.named_modules(remove_duplicate=False):
        if path:
            paths.setdefault(id(below), path)
    key = id(above)
    # The address may be another module's afterwards.
    _paths[key] = weakref.ref(above, lambda _: _paths.pop(key, None)), paths
    return paths


def _hangs_at(above: Module, path: str, module: Module) -> bool:
    try:
        return above.get_submodule(path) is module
    except AttributeError:
        return False


def find(above: Module | None, module: Module) -> tuple[str, Attribute]:
    """The attribute path of ``module`` below ``above``; empty where it has none."""
    if above is not None:
        known, paths = _paths.get(id(above), (None, {}))
        path = paths.get(id(module)) if known is not None and known() is above else None
        if path is None or not _hangs_at(above, path, module):
            path = _paths_below(above).get(id(module))
        if path is not None:
            holder, _, name = path.rpartition(".")
            return path, Attribute(above.get_submodule(holder), name)
    return "", Attribute(None, "")


class Scope:
    """A module as it is called from another one. Any number of calls on any thread may use it.

    Args:
        path: The module's attribute path below the nearest enclosing module that is called.
        absolute: The one below the root.
        opaque: Whether its inside cannot be seen.
    """

    __slots__ = ("address", "attribute", "handle", "module", "opaque", "signature")

    def __init__(self, module: Module, attribute: Attribute, path: str, absolute: str, opaque: bool) -> None:
        self.signature = Signature(module)
        self.module = weakref.ref(module)
        self.attribute = attribute
        self.opaque = opaque
        names = texts(self.signature.names)
        described: tuple[Any, ...] = path.encode(), absolute.encode(), class_name(module).encode(), names, len(names)
        # What calls take each time: quicker than the handle that owns it.
        self.address = made(lib.gp_scope_new, *described, opaque)
        self.handle = Handle(lib.gp_scope_free, self.address)

    def is_current(self, module: Module) -> bool:
        """Whether the module still is what this was made of."""
        return (
            self.module() is module
            and self.attribute.holds(module)
            and self.signature.fits(module)
            and self.opaque == (why_opaque(module) is not None)
        )
