"""A module's own session: what is recorded of it, what its patches do on errors, and whether its calls are runs."""

from __future__ import annotations

import contextlib
from typing import Any

from torch.nn import Module

from . import _capture, _distributed, _exported
from ._graphs import Graph, Graphs
from ._handle import Handle
from ._header import GP_ON_ERROR_RAISE, GP_ON_ERROR_SKIP
from ._library import check, lib, made, text
from ._locks import new_lock
from ._module_call import watch
from ._root import Root
from ._watched import watched


class Recorder:
    """The session of one module, and the module as its root. Loads the adapter for the process's libtorch.

    Args:
        loaded: The graph to use as long as nothing was recorded.

    Requests are counted: a method with an argument ``change`` is called with 1, and later with -1. Any thread may call.
    """

    def __init__(self, module: Module, loaded: Graphs | None = None) -> None:
        check(lib.gp_torch_load())
        self.loaded = loaded
        self.session = Handle(lib.gp_session_close, made(lib.gp_session_open))
        self.root = Root(module, f"{_exported.class_of(module)}.forward", self.session)
        _exported.prepare(self.root)
        self.root.has_parts = _distributed.holds(module)
        self.lock = new_lock()
        self._wanted = self._recordings = 0
        self._skips: set[Any] = set()
        self._graph: Graph | None = None
        # The blocks of patches that are open, in the order in which they were entered.
        self.opened: list[Any] = []
        # The edits that are open, which no block closes.
        self.edits: list[Any] = []

    def graph(self) -> Graph:
        """What was recorded so far."""
        with self.lock:
            if self._graph is not None:
                return self._graph
            graphs = Graphs(made(lib.gp_session_graphs, self.session))
            if self.loaded is not None and not lib.gp_graphs_count(graphs.handle):
                graphs = self.loaded
            graph = graphs.graph(0)
            if not self._recordings:
                self._graph = graph
            return graph

    def notes(self) -> list[str]:
        return text(lib.gp_session_notes, self.session).splitlines()

    def want(self, change: int) -> None:
        """With 1, calls of the module are runs, until as many calls with -1 were made."""
        with self.lock:
            if change > 0:
                _capture.install()
                watch(self.root)
            self._wanted += change
            if not self._wanted:
                watched.remove(self.root)

    def record(self, change: int) -> None:
        """With 1, runs are recorded, until as many calls with -1 were made."""
        with self.lock:
            self._recordings += change
            self._graph = None
            check(lib.gp_session_record(self.session, self._recordings > 0))

    def show_inside(self, operation: str) -> None:
        """Shows the inside of this operation in recorded runs."""
        check(lib.gp_session_inside(self.session, operation.encode(), True))

    def skip(self, who: Any, on: bool) -> None:
        """Has patches that cannot be applied skipped, as long as any ``who`` wants it."""
        with self.lock:
            if on:
                self._skips.add(who)
            else:
                self._skips.discard(who)
            on_error = GP_ON_ERROR_SKIP if self._skips else GP_ON_ERROR_RAISE
            check(lib.gp_session_on_error(self.session, on_error))


class Recording(contextlib.ContextDecorator):
    """A block, or a function, in which runs are recorded."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __enter__(self) -> None:
        self._recorder.want(1)
        self._recorder.record(1)

    def __exit__(self, *_: object) -> None:
        self._recorder.record(-1)
        self._recorder.want(-1)
