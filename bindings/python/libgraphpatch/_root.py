"""A module whose calls are runs: a root, with what is known of the modules below it."""

from __future__ import annotations

import ctypes
import itertools
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from torch.nn import Module

from ._gone import when_gone
from ._handle import Handle
from ._library import lib, made, texts
from ._locks import new_lock
from ._modules import below, class_name, held_tensor, is_script, parts, why_opaque
from ._scope import Scope, forget_paths
from ._signature import Signature

# Modules by id, each with the dict that holds it and its key there, since another module may be put there.
Ignored = dict[int, tuple[Module, dict[str, Module], str]]

Part = tuple[str, "weakref.ref[Module]", list[str]]
Foreign = list[tuple[str, "weakref.ref[Module]"]]


class Held(NamedTuple):
    """What held when a run began."""

    # How many patches that may change a value, without those of the attached session, and how many functions.
    changes: int
    functions: int


_NOTHING = Held(0, 0)
_numbers = itertools.count()


class Closes(Protocol):
    """An object that a patch needs as long as a run may use the patch."""

    def close(self) -> None: ...


class Waits(Protocol):
    """A report that is made when the last of some runs has ended."""

    def is_over(self) -> bool: ...

    def tell(self) -> None: ...


class ModuleTree:
    """A root's module with all modules and parameters below it, as they are at one time; and the object of the library
    that describes them."""

    def __init__(self, module: Module, name: str, opaque: bool, foreign: Foreign) -> None:
        self.signature = Signature(module)
        self.parts = _all_parts(module, foreign)
        # For each attribute path, the module that holds the parameter or buffer, and the name there.
        self.parameters = [
            (f"{path}.{name}" if path else name, (part, name)) for path, part, held in self.parts for name in held
        ]
        self.scripted = any(is_script(part) for _, part in below(module))
        names, paths = self.signature.arguments.texts, texts(path for path, _ in self.parameters)
        described: tuple[Any, ...] = name.encode(), class_name(module).encode(), names, len(names), paths, len(paths)
        self.handle = Handle(lib.gp_root_free, made(lib.gp_root_new, *described, opaque))

    def is_current(self, module: Module, foreign: Foreign) -> bool:
        return self.signature.fits(module) and _are_same(self.parts, _all_parts(module, foreign))

    def identities(self) -> Any:
        """The tensors that the parameters are now, as addresses in the order of ``parameters``."""
        tensors = [held_tensor(owner(), name) for _, (owner, name) in self.parameters]
        addresses = [None if tensor is None else tensor._cdata for tensor in tensors]
        return (ctypes.c_void_p * len(addresses))(*addresses)


def _all_parts(module: Module, foreign: Foreign) -> list[Part]:
    """The parts of the root's module, and of further living modules that its runs call but that are not below it."""
    found = parts(module)
    for path, reference in foreign:
        held = reference()
        if held is not None:
            found += [(f"{path}.{below}" if below else path, part, names) for below, part, names in parts(held)]
    return found


def _are_same(known: list[Part], now: list[Part]) -> bool:
    """Whether both lists hold the very same modules, by identity and not by ``==``."""
    if len(known) != len(now):
        return False
    pairs = zip(known, now, strict=True)
    return all(old[0] == new[0] and old[1]() is new[1]() and old[2] == new[2] for old, new in pairs)


class Cold:
    """Takes the place of a frame while nothing that happens matters to the run."""

    __slots__ = ()


class Root:
    """A module whose calls are runs, and what is known of the modules below it. Any number of runs on any thread may
    use it.

    Args:
        name: Names its graph.
        session: The session to which its runs belong; None for the attached one.
    """

    def __init__(self, module: Module, name: str, session: Handle | None) -> None:
        self.module = weakref.ref(module)
        self.name = name
        self.session = session
        self.why_opaque = why_opaque(module)
        # Modules that its runs call but that are not below its module, as a plain object holds them; each with the path
        # that it was given.
        self.foreign: Foreign = []
        self.tree = ModuleTree(module, name, self.why_opaque is not None, self.foreign)
        self.cold = Cold()
        # By the ids of the calling and the called module.
        self.scopes: dict[tuple[int, int], Scope] = {}
        # Calls that cannot matter, by the plan of the patches and the place in it of the calling scope.
        self.ignored: dict[tuple[int, int], Ignored] = {}
        # This lock is held while a run begins, so that patches do not change meanwhile. `begun` counts these runs.
        self.beginning = new_lock()
        self.begun = 0
        # Whether the last run asked for parameters. If so, the next run looks for new parameters first.
        self.by_parameter = False
        self._lock = new_lock()
        # The modules whose classes were looked at for a `__call__` of their own.
        self.known_classes: ModuleTree | None = None
        self._members: dict[int, weakref.ref[Module]] | None = None
        # The function that makes the call of its module in a run that shows its inside, if that is not the function
        # that the call came by.
        self.inner: Callable[..., Any] | None = None
        # How many patches hold that may change a value, without those of the attached session.
        self.changes = 0
        # How many of these patches are functions of the user's.
        self.functions = 0
        # Whether a run has seen a plain tensor that is this rank's part of a DTensor. What is computed from it is
        # known only where all operations are seen.
        self.has_parts = False
        # How many patches hold that are limited to rows, positions or steps.
        self.limits = 0
        # What held then, by the number of the plan that a run has begun with.
        self.plans: dict[int, Held] = {}
        # How often such patches began to hold where there were none. What is known of earlier calls ends there.
        self.limited = 0
        # How many runs are under way, and how many snapshots of runs exist, from which a part may be computed again.
        # `open` has one element for each of these runs of which something is wanted.
        self.running = 0
        self.snapshots = set[int]()
        self.open: list[None] = []
        # Objects that are closed when no run is under way any more, and those that snapshots may use, too.
        self.ending: list[Closes] = []
        self.retired: list[Closes] = []
        # Reports about blocks that ended while runs were under way.
        self.awaited: list[Waits] = []

    def is_direct(self, module: Module) -> bool:
        """Whether a call of ``module`` is a run of this root, and torch's own call of the module is all that happens in
        it. The extension makes such calls without Python."""
        own = self.module() is module and not is_script(module)
        watched = self.inner is not None or bool(self.limits) or module._compiled_call_impl is not None
        return own and not watched and not self.why_opaque

    def may_change(self, plan: int) -> bool:
        """Whether a patch of this plan may change a value. Patches may have been removed since the run has begun."""
        return bool(plan and (self.session is None or self.held(plan).changes))

    def held(self, plan: int) -> Held:
        """What held when runs with this plan began. Since then, other threads may have opened and closed blocks."""
        return self.plans.get(plan, _NOTHING)

    def refresh(self) -> None:
        """Updates the tree if modules or parameters were added, removed or moved."""
        module = self.module()
        if module is None or self.tree.is_current(module, self.foreign):
            return
        # The old tree lives as long as runs that use it.
        tree = ModuleTree(module, self.name, self.why_opaque is not None, self.foreign)
        self._members = None
        forget_paths()
        self.tree = tree
        self.scopes, self.ignored = {}, {}  # they refer to the old tree's parameters

    def identities(self, tree: ModuleTree) -> Any:
        """The tensors that the parameters of ``tree`` are now, also if other modules have taken the places of those in
        it."""
        self.refresh()
        if self.tree is tree:
            return tree.identities()
        now = dict(zip((path for path, _ in self.tree.parameters), self.tree.identities(), strict=True))
        return (ctypes.c_void_p * len(tree.parameters))(*[now.get(path) for path, _ in tree.parameters])

    def foreign_path(self, module: Module) -> str:
        """The path that is given to a module that is not below the root's. It is empty for a module without parameters,
        which needs no path. The module's parameters are known from the next run on."""
        for path, reference in self.foreign:
            held = reference()
            if held is None:
                continue
            inner = next((inner for inner, part in below(held) if part is module), None)
            if inner is not None:
                return f"{path}.{inner}" if inner else path
        if not any(held for _, _, held in parts(module)):
            return ""
        with self._lock:
            self.foreign = [known for known in self.foreign if known[1]() is not None]
            base, root = type(module).__name__, self.module()
            used = {path for path, _ in self.foreign}.union(() if root is None else root._modules)
            paths = (base if number == 0 else f"{base}_{number}" for number in itertools.count())
            path = next(path for path in paths if path not in used)
            self.foreign = [*self.foreign, (path, weakref.ref(module))]
        return path

    def enter(self) -> None:
        """Notes that a run begins."""
        with self._lock:
            self.running += 1

    def leave(self) -> None:
        """Notes that the run has ended."""
        with self._lock:
            self.running -= 1
        self._one_less()

    def keep(self, snapshot: object) -> None:
        """Notes that there is a snapshot more, as long as that object lives."""
        number = next(_numbers)
        when_gone(snapshot, self._let_go, number)
        self.snapshots.add(number)

    def _let_go(self, number: int) -> None:
        self.snapshots.discard(number)
        self._one_less()

    def _one_less(self) -> None:
        """Does what waits for the end of runs and snapshots."""
        if self.ending or self.retired:
            self.sweep()
        if self.awaited:
            self.tell_awaited()

    def await_runs(self, report: Waits) -> None:
        """Makes the report when the runs that it waits for have ended, which may be now."""
        with self._lock:
            self.awaited = [*self.awaited, report]
        self.tell_awaited()

    def tell_awaited(self, all_of_them: bool = False) -> None:
        """Makes the reports whose runs have ended."""
        with self._lock:
            told = [report for report in self.awaited if report.is_over() or not self.running or all_of_them]
            self.awaited = [report for report in self.awaited if report not in told]
        for report in told:
            report.tell()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left that may use removed patches."""
        return not (self.running or self.snapshots)

    def retire(self, held: list[Closes | None]) -> None:
        """Takes objects that removed patches needed, and closes them as soon as nothing is left that may use them."""
        with self._lock:
            self.retired += [living for living in held if living is not None]
        self.sweep()

    def at_the_end(self, held: Closes) -> None:
        """Closes the object as soon as no run is under way."""
        with self._lock:
            self.ending.append(held)
        self.sweep()

    def sweep(self) -> None:
        """Closes the objects that wait for it, and forgets modules that no longer exist, if no run is under way."""
        with self._lock:
            if self.is_idle:
                self.ignored.clear()
                self.plans.clear()
                for key in [key for key, scope in [*self.scopes.items()] if scope.module() is None]:
                    self.scopes.pop(key, None)
        # Closed without the lock, since closing takes locks of its own.
        while (held := self._unused()) is not None:
            held.close()

    def _unused(self) -> Closes | None:
        with self._lock:
            if self.ending and not self.running:
                return self.ending.pop()
            return self.retired.pop() if self.retired and self.is_idle else None

    def has(self, module: Module) -> bool:
        """Whether ``module`` is the root's or one below it."""
        root = self.module()
        if self._members is None and root is not None:
            self._members = {id(part): weakref.ref(part) for _, part in below(root)}
        known = None if self._members is None else self._members.get(id(module))
        return known is not None and known() is module
