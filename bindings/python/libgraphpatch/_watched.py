"""The modules whose calls are runs, in the whole process.

A module may be the root of several PatchableGraphs. Only roots of whose runs something is wanted are listed here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator

from torch.nn import Module

from ._locks import new_lock
from ._modules import class_name, note
from ._native import native
from ._root import Root
from ._thread import thread


class Watched:
    """The roots whose calls are runs. Any thread may change or read this at any time."""

    def __init__(self) -> None:
        # The roots by the module's id. The root that was watched last comes last.
        self.roots: dict[int, tuple[Root, ...]] = {}
        # The function that makes a root of a module that is called outside of any run (`graphpatch run`).
        self.outermost: Callable[[Module], Root | None] | None = None
        # Whether a call may be a run at all, and whether a call inside a run may be a run of its own.
        self.any = False
        self.several = False
        # Held only briefly, also by functions that the garbage collector calls.
        self._lock = new_lock()

    def add(self, root: Root) -> None:
        """Calls of the root's module are runs from now on."""
        with self._lock:
            key = id(root.module())
            self.roots[key] = (*(known for known in self.roots.get(key, ()) if known is not root), root)
            self._count()

    def remove(self, root: Root) -> None:
        """Calls of the root's module are no longer its runs."""
        with self._lock:
            for key, roots in list(self.roots.items()):
                if root in roots:
                    left = tuple(known for known in roots if known is not root)
                    if left:
                        self.roots[key] = left
                    else:
                        del self.roots[key]
            self._count()

    def make_roots(self, make: Callable[[Module], Root | None] | None) -> None:
        """From now on ``make`` is asked for a root of every module that is called outside of a run; None ends that."""
        with self._lock:
            self.outermost = make
            self._count()

    def _count(self) -> None:
        self.any = bool(self.roots) or self.outermost is not None
        self.several = len(self.roots) > (self.outermost is None)
        if native is not None:
            native.watching(self.any, self.several)

    @contextlib.contextmanager
    def in_a_run(self, key: object) -> Generator[None, None, None]:
        """Inside the block, calls of modules are looked at even if no root is watched, as a run is open already."""
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
        """The root that a call of the module is a run of, among the module's roots: the one whose PatchableGraph is
        being called, or else the one that was watched last."""
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
def asking(root: Root) -> Generator[None, None, None]:
    """Inside the block, calls of the root's module on this thread are runs of this root, also if the module has
    others."""
    outer, thread.asked = thread.asked, root
    try:
        yield
    finally:
        thread.asked = outer
