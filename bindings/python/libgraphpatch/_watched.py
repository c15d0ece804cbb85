"""Which modules' calls are runs, in the whole process.

A module may be the root of several PatchableGraphs. Only those of which something is wanted are here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from torch.nn import Module

from ._locks import new_lock
from ._modules import class_name, note
from ._native import native
from ._root import Root
from ._thread import thread


class Watched:
    """The roots whose calls are runs. Any thread may change it, and read it meanwhile."""

    def __init__(self) -> None:
        # By the module's id; the root that was watched last is the last.
        self.roots: dict[int, tuple[Root, ...]] = {}
        # Who makes a root of a module that is called outside of any run (`graphpatch run`).
        self.outermost: Callable[[Module], Root | None] | None = None
        # Whether a call may be a run at all, and whether one inside a run may be.
        self.any = False
        self.several = False
        # Held for a moment only, also by what the garbage collector calls.
        self._lock = new_lock()

    def add(self, root: Root) -> None:
        """Calls of the root's module are runs from now on."""
        with self._lock:
            key = id(root.module())
            self.roots[key] = (*(known for known in self.roots.get(key, ()) if known is not root), root)
            self._count()

    def remove(self, root: Root) -> None:
        """They are none any more."""
        with self._lock:
            for key, roots in list(self.roots.items()):
                if root in roots:
                    left = tuple(known for known in roots if known is not root)
                    if left:
                        self.roots[key] = left
                    else:
                        del self.roots[key]
            self._count()

    def make_roots(self, make: Callable[[Module], Root | None]) -> None:
        """Every module that is called outside of a run is a root, as ``make`` says."""
        with self._lock:
            self.outermost = make
            self._count()

    def _count(self) -> None:
        self.any = bool(self.roots) or self.outermost is not None
        self.several = len(self.roots) > (self.outermost is None)
        if native is not None:
            native.watching(self.any, self.several)

    @contextlib.contextmanager
    def in_a_run(self, key: object) -> Iterator[None]:
        """Calls of modules are looked at though no root may be watched; the run is open already."""
        with self._lock:
            self.roots[id(key)] = ()
            self._count()
        try:
            yield
        finally:
            with self._lock:
                del self.roots[id(key)]
                self._count()

    def all(self) -> list[Root]:
        return [root for known in list(self.roots.values()) for root in known]

    def choose(self, module: Module, roots: tuple[Root, ...]) -> Root | None:
        """Of the roots that a module has, the one of which a call is a run: whose PatchableGraph is being called, or
        else the one that was watched last."""
        asked = thread.asked
        if asked is not None and asked.module() is module:
            return asked if asked in roots else None
        for root in roots[:-1]:
            note(
                root.session,
                f"{class_name(module)}: a call of the module itself followed another PatchableGraph of it,"
                " whose block was entered later; call the PatchableGraph that you mean",
            )
        return roots[-1]


watched = Watched()


@contextlib.contextmanager
def asking(root: Root) -> Iterator[None]:
    """Calls of the root's module on this thread are its own runs, also where the module has other roots."""
    outer, thread.asked = thread.asked, root
    try:
        yield
    finally:
        thread.asked = outer
