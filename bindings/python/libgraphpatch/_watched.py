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


class _Ending:
    """A root whose calls are no longer runs, as long as runs of it are under way."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    def close(self) -> None:
        self._watched._over(self)


class Watched:
    """The roots whose calls are runs. Any thread may change or read this at any time."""

    def __init__(self) -> None:
        # The roots by the module's id. The root that was watched last comes last. A run that is under way although its
        # root is not watched has an entry without roots.
        self.roots: dict[int, tuple[Root, ...]] = {}
        # The function that makes a root of a module that is called outside of any run (`graphpatch run`).
        self.outermost: Callable[[Module], Root | None] | None = None
        # Whether a call may be a run or belong to one, and whether a call inside a run may be a run of its own.
        self.any = False
        self.several = False
        # To be called as soon as no call may be a run.
        self._then: Callable[[], None] | None = None
        # Held only briefly, also by functions that the garbage collector calls.
        self._lock = new_lock()

    def add(self, root: Root) -> None:
        """Calls of the root's module are runs from now on."""
        with self._lock:
            key = id(root.module())
            self.roots[key] = (*(known for known in self.roots.get(key, ()) if known is not root), root)
            self._count()

    def remove(self, root: Root) -> None:
        """Calls of the root's module are no longer its runs. Runs that are under way are seen to their end."""
        self._see_to_the_end([root])
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
        """From now on ``make`` is asked for a root of every module that is called outside of a run."""
        with self._lock:
            self.outermost, self._then = make, None
            self._count()

    def make_no_roots(self, made: list[Root], then: Callable[[], None]) -> None:
        """Ends what :meth:`make_roots` began.

        Args:
            made: The roots that were made. Their runs that are under way are seen to their end.
            then: Called as soon as no call may be a run.
        """
        self._see_to_the_end(made)
        with self._lock:
            self.outermost, self._then = None, then
            self._count()
        self._tell()

    def _see_to_the_end(self, roots: list[Root]) -> None:
        """Has calls of modules looked at until the runs of these roots that are under way have ended."""
        for root in roots:
            if root.running:
                ending = _Ending(self)
                with self._lock:
                    self.roots[id(ending)] = ()
                    self._count()
                root.at_the_end(ending)

    def _over(self, key: object) -> None:
        with self._lock:
            del self.roots[id(key)]
            self._count()
        self._tell()

    def _tell(self) -> None:
        with self._lock:
            then = None if self.any else self._then
            self._then = self._then if self.any else None
        if then is not None:
            then()

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
            self._over(key)

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
