"""Graphs that torch.compile captures. What the program's compiler makes of one runs as long as nothing is wanted of it;
what is recorded or patched is computed operation by operation, and has the names that it has where nothing is compiled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

from . import _marks
from ._dispatch_key import hide
from ._header import GP_WANTS_RECORD
from ._replay import Replay
from ._root import Cold
from ._thread import Frame, thread
from ._watched import watched

Compiled = Callable[..., Any]
Compiler = Callable[[fx.GraphModule, list[Any]], Compiled]


class Captured:
    """One captured graph.

    Args:
        marked: The graph with the marks of module calls.
        compile: The program's compiler.
    """

    def __init__(self, marked: fx.GraphModule, examples: list[Any], compile: Compiler) -> None:
        self._marked = fx.GraphModule(marked, _copied(marked.graph))
        self._calls = [node for node in self._marked.graph.nodes if _marks.is_mark(node)]
        self._written = [
            index for index, node in enumerate(_inputs(marked.graph)) if _is_written(node.meta.get("example_value"))
        ]
        plain = marked
        if self._calls:
            plain = fx.GraphModule(marked, _marks.without_marks(marked.graph))
            plain.meta.update(marked.meta)
        self._compiled = compile(plain, examples)
        for node in self._marked.graph.nodes:
            node.meta.pop("example_value", None)

    def __call__(self, *args: Any) -> Any:
        frame = thread.frame
        if frame is None:
            if not (watched.any and self._has_roots()):
                return self._compiled(*args)
            return self._alone(args)
        if type(frame) is Frame and not thread.apart:
            return self._inside(frame, args)
        return self._compiled(*args)

    def _alone(self, args: tuple[Any, ...]) -> Any:
        """Outside of runs: calls of modules in the graph may be runs."""
        roots = [root for root in watched.all() if any(_marks.module_of(mark) is root.module() for mark in self._calls)]
        if any(root.changes for root in roots) or watched.outermost is not None:
            return Replay(self._marked.graph, self._marked, args).run()
        self._look(args)
        return self._compiled(*args)

    def _inside(self, frame: Frame, args: tuple[Any, ...]) -> Any:
        """In a scope of this thread's run."""
        if frame.root.changes if frame.root.session is not None else frame.plan:
            return Replay(self._marked.graph, self._marked, args).run()
        if frame.plan or frame.wants & GP_WANTS_RECORD:
            self._look(args)
        return self._plain(args)

    def _plain(self, args: tuple[Any, ...]) -> Any:
        """What the program's compiler has made, of which the run sees nothing."""
        frame = thread.frame
        assert type(frame) is Frame
        thread.frame = frame.root.cold
        hide(True)
        try:
            return self._compiled(*args)
        finally:
            hide(False)
            thread.frame = frame

    def _look(self, args: tuple[Any, ...]) -> None:
        """Shows what the graph computes. The arguments are afterwards what they were, and so are random numbers."""
        copied = [arg.clone() if index in self._written else arg for index, arg in enumerate(args)]
        with torch.no_grad(), _same_random_numbers(args):
            Replay(self._marked.graph, self._marked, tuple(copied)).run()

    def _has_roots(self) -> bool:
        if watched.outermost is not None:
            return bool(self._calls)
        return any(_marks.module_of(mark) is not None and id(_marks.module_of(mark)) in watched.roots for mark in self._calls)


@contextlib.contextmanager
def _same_random_numbers(args: tuple[Any, ...]) -> Iterator[None]:
    devices = {arg.device for arg in args if isinstance(arg, Tensor) and arg.is_cuda}
    with torch.random.fork_rng(devices=list(devices)):
        yield


def _inputs(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op == "placeholder"]


def _is_written(example: Any) -> bool:
    """Whether an argument is written by the graph, as the traced one was."""
    return isinstance(example, Tensor) and example._version > 0


def _copied(graph: fx.Graph) -> fx.Graph:
    copied = fx.Graph()
    output = copied.graph_copy(graph, {}, return_output_node=True)
    if output is not None:
        value, original = output
        node = copied.output(value)
        node.meta.update(original.meta)
    return copied
