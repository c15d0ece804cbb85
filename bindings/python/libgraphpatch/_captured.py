"""Graphs that torch.compile captures. What the program's compiler makes of one runs as long as nothing is wanted of it;
what is recorded or patched is computed operation by operation, and has the names that it has where nothing is compiled.
"""

from __future__ import annotations

import re
import sys
import time
import types
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, fx

from . import _marks
from ._dispatch_key import hidden
from ._header import GP_WANTS_RECORD
from ._modules import is_handlers, note_failure
from ._replay import Replay
from ._run import spare
from ._side_effects import Before
from ._tapped_graph import Layout
from ._taps import Tapped, Taps
from ._thread import Frame, thread
from ._watched import watched
from .errors import PatchError

T = TypeVar("T")

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
        # Numbers of the program's that are tensors in the graph; it takes them out by an operation of its own.
        self._numbers = {node.name for node in _inputs(marked.graph) if _is_number(node)}
        self._calls = [node for node in self._marked.graph.nodes if _marks.is_mark(node)]
        plain = marked
        if self._calls:
            plain = fx.GraphModule(marked, _marks.without_marks(marked.graph))
            plain.meta.update(marked.meta)
        layout, began = Layout(self._marked.graph), time.perf_counter()
        self._compiled = compile(plain, examples)
        cost = time.perf_counter() - began
        self._taps = None if self._numbers else Taps(self._marked, layout, compile, self._compiled, cost)
        for node in self._marked.graph.nodes:
            node.meta.pop("example_value", None)

    def __call__(self, *args: Any) -> Any:
        frame = thread.frame
        if frame is None:
            return self._alone(args) if watched.any and self._calls else self._compiled(*args)
        if type(frame) is Frame and not thread.apart:
            return self._inside(frame, args)
        return self._compiled(*args)

    def _alone(self, args: tuple[Any, ...]) -> Any:
        """Outside of runs: calls of modules in the graph may be runs."""
        modules = _marks.Modules(_caller())
        if watched.outermost is not None:
            return self._watched(modules, args)
        called = [modules.of(mark) for mark in self._calls]
        roots = [root for root in watched.all() if any(module is root.module() for module in called)]
        if any(root.changes for root in roots):
            return self._replay(modules, args)
        if roots:
            self._look(modules, args, None)
        return self._compiled(*args)

    def _watched(self, modules: _marks.Modules, args: tuple[Any, ...]) -> Any:
        """The same under `graphpatch run`, where only a run tells whether there are patches for it."""
        thread.plan.value = 0
        before = Before(arg for arg in args if isinstance(arg, Tensor))
        try:
            result = self._replay(modules, args)
            if thread.plan.value:
                return result
        except PatchError:
            raise
        except Exception as error:  # the program must not fail because of us
            if is_handlers(error):
                raise
            note_failure("a compiled function", "its inside was not seen", error)
        before.restore()
        return self._compiled(*args)

    def _inside(self, frame: Frame, args: tuple[Any, ...]) -> Any:
        """In a scope of this thread's run."""
        changes = frame.root.changes if frame.root.session is not None else frame.plan
        tapped = None
        taps = None if frame.wants & GP_WANTS_RECORD or not frame.plan else self._taps
        if taps is not None:
            tapped = self._tapped(taps, frame, args, bool(changes))
        if taps is not None and tapped is not None:
            return _apart(frame, lambda: taps.run(tapped, args, bool(changes)))
        if changes:
            return self._replay(_marks.Modules(_caller()), args)
        if frame.plan or frame.wants & GP_WANTS_RECORD:
            self._look(_marks.Modules(_caller()), args, frame)
        return _apart(frame, lambda: self._compiled(*args))

    def _tapped(self, taps: Taps, frame: Frame, args: tuple[Any, ...], changes: bool) -> Tapped | None:
        """The code that applies the patches of the run itself, if there is such."""
        caller = _caller()

        def replay(make: Callable[..., Replay]) -> None:
            self._replay(_marks.Modules(caller), args, make)

        return _apart(frame, lambda: taps.fitting(frame, replay, args, changes))

    def _replay(self, modules: _marks.Modules, args: tuple[Any, ...], make: Callable[..., Replay] = Replay) -> Any:
        """Computes the graph operation by operation."""
        compiled, began = thread.compiled, time.perf_counter()
        thread.in_compiled(None)
        try:
            with hidden(False):
                return make(self._marked, self._numbers, modules, args).run()
        finally:
            thread.in_compiled(compiled)
            if self._taps is not None:
                self._taps.spent += time.perf_counter() - began

    def _look(self, modules: _marks.Modules, args: tuple[Any, ...], frame: Frame | None) -> None:
        """Shows what the graph computes. The arguments are afterwards what they were, and so are random numbers."""
        before = Before(arg for arg in args if isinstance(arg, Tensor))
        try:
            with torch.no_grad():
                self._replay(modules, args)
        except Exception as error:
            if frame is None or is_handlers(error):
                raise
            spare(frame.root, frame.module, error)
        finally:
            before.restore()


def _apart(frame: Frame, computes: Callable[[], T]) -> T:
    """Calls what is to be no part of the run that ``frame`` is in, but for its taps."""
    thread.frame = frame.root.cold
    try:
        with hidden(True):
            return computes()
    finally:
        thread.frame = frame


def _inputs(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op == "placeholder"]


def _is_number(node: fx.Node) -> bool:
    return bool(getattr(node.meta.get("grapharg"), "pass_arg_as_tensor", False))


def _caller() -> types.FrameType:
    """The frame of the function that was captured: the first one above ours and torch.compile's."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _IS_BETWEEN(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


_IS_BETWEEN = re.compile(r".*[/\\](_captured\.py|torch[/\\]_dynamo[/\\]eval_frame\.py)").fullmatch


def _copied(graph: fx.Graph) -> fx.Graph:
    copied = fx.Graph()
    output = copied.graph_copy(graph, {}, return_output_node=True)
    if output is not None:
        value, original = output
        node = copied.output(value)
        node.meta.update(original.meta)
    return copied
