"""A module whose calls are runs: a root, with what is known of the modules below it."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any, Protocol

from torch.nn import Module

from ._library import Handle, lib, made, texts
from ._locks import new_lock
from ._modules import below, class_name, held_tensor, is_script, parts, why_opaque
from ._scope import Scope, forget_paths
from ._signature import Signature

# Modules by id, each with the dict that holds it and its key there: another one may take its place.
Ignored = dict[int, tuple[Module, dict[str, Module], str]]

Part = tuple[str, "weakref.ref[Module]", list[str]]


class Closes(Protocol):
    """What a patch needs as long as a run may use it."""

    def close(self) -> None: ...


class ModuleTree:
    """A root's module with all modules and parameters below it as they are at one time, and the library's picture of
    that."""

    def __init__(self, module: Module, name: str, opaque: bool) -> None:
        self.signature = Signature(module)
        self.parts = parts(module)
        # By attribute path: the module that holds the parameter or buffer, and its name there.
        self.parameters = [
            (f"{path}.{name}" if path else name, (part, name)) for path, part, held in self.parts for name in held
        ]
        self.scripted = any(is_script(part) for _, part in below(module))
        names, paths = texts(self.signature.names), texts(path for path, _ in self.parameters)
        described: tuple[Any, ...] = name.encode(), class_name(module).encode(), names, len(names), paths, len(paths)
        self.handle = Handle(lib.gp_root_free, made(lib.gp_root_new, *described, opaque))

    def is_current(self, module: Module) -> bool:
        return self.signature.fits(module) and _are_same(self.parts, parts(module))

    def identities(self) -> Any:
        """The tensors that the parameters are now, as addresses in the order of ``parameters``."""
        tensors = [held_tensor(owner(), name) for _, (owner, name) in self.parameters]
        addresses = [None if tensor is None else tensor._cdata for tensor in tensors]
        return (ctypes.c_void_p * len(addresses))(*addresses)


def _are_same(known: list[Part], now: list[Part]) -> bool:
    """Whether both are of the very same modules, whatever those say of being equal."""
    if len(known) != len(now):
        return False
    pairs = zip(known, now, strict=True)
    return all(old[0] == new[0] and old[1]() is new[1]() and old[2] == new[2] for old, new in pairs)


class Cold:
    """Stands for a frame where nothing that happens matters to the run."""

    __slots__ = ()


class Root:
    """A module whose calls are runs, and what is known of the modules below it. Any number of runs on any thread may
    use it.

    Args:
        name: Names its graph.
        session: The session that its runs are of; None for the attached one.
    """

    def __init__(self, module: Module, name: str, session: Handle | None) -> None:
        self.module = weakref.ref(module)
        self.name = name
        self.session = session
        self.why_opaque = why_opaque(module)
        self.tree = ModuleTree(module, name, self.why_opaque is not None)
        self.cold = Cold()
        # By the ids of the calling and the called module.
        self.scopes: dict[tuple[int, int], Scope] = {}
        # Calls that cannot matter, by the patches and the place among them that they come from.
        self.ignored: dict[tuple[int, int], Ignored] = {}
        # Patches change between runs, not while one begins; how many began so far.
        self.beginning = new_lock()
        self.begun = 0
        # Whether the last run asked for parameters: then the next one looks for new ones first.
        self.by_parameter = False
        self._lock = new_lock()
        # The modules whose classes were looked at for a `__call__` of their own.
        self.known_classes: ModuleTree | None = None
        self._members: dict[int, weakref.ref[Module]] | None = None
        # Runs that are under way and may be met on other threads (one element each); those and what may be run again.
        self.open: list[None] = []
        self.running = 0
        self.retired: list[Closes] = []

    def refresh(self) -> None:
        """Takes notice of modules and parameters that are new, gone or elsewhere."""
        module = self.module()
        if module is None or self.tree.is_current(module):
            return
        tree = ModuleTree(module, self.name, self.why_opaque is not None)  # the old one lives as long as its runs
        self._members = None
        forget_paths()
        self.tree = tree
        self.scopes, self.ignored = {}, {}  # they know of the old one's parameters

    def enter(self) -> None:
        """A run begins, or something that may be run again."""
        with self._lock:
            self.running += 1

    def leave(self) -> None:
        """What :meth:`enter` began has ended."""
        with self._lock:
            self.running -= 1
        if self.retired:
            self.sweep()

    def retire(self, held: list[Closes | None]) -> None:
        """What patches needed that are gone: let go of as soon as no run is left that may use it."""
        with self._lock:
            self.retired += [living for living in held if living is not None]
        self.sweep()

    def sweep(self) -> None:
        """Lets go of what is retired, and of what is known of modules that are gone, if no run is under way."""
        with self._lock:
            if self.running == 0:
                self.ignored.clear()
                for key in [key for key, scope in [*self.scopes.items()] if scope.module() is None]:
                    self.scopes.pop(key, None)
                while self.retired:
                    self.retired.pop().close()

    def is_running(self, module: Module) -> bool:
        """Whether a run is under way on whatever thread, and ``module`` belongs to it."""
        return bool(self.open) and self.has(module)

    def has(self, module: Module) -> bool:
        """Whether ``module`` is the root's or one below it."""
        root = self.module()
        if self._members is None and root is not None:
            self._members = {id(part): weakref.ref(part) for _, part in below(root)}
        known = None if self._members is None else self._members.get(id(module))
        return known is not None and known() is module
