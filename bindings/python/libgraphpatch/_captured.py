"""Graphs that torch.compile captures. As long as nothing is wanted of a graph, the code runs that the program's
compiler has made of it. If it is recorded or patched, it is computed operation by operation, and its values have the
same names as without torch.compile.
"""

from __future__ import annotations

import re
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from . import _marks
from ._dispatch_key import hidden
from ._header import GP_WANTS_RECORD
from ._kinds import is_a
from ._modules import class_name, is_handlers, note, note_failure
from ._raised import spare
from ._replay import Replay
from ._side_effects import Before
from ._tapped_graph import Layout
from ._taps import ONE_BY_ONE, Taps
from ._thread import Frame, thread
from ._watched import watched
from .errors import PatchError

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
        # Inputs that are numbers to the program but tensors in the graph, which converts them by operations of its own.
        self._numbers = {node.name for node in _inputs(marked.graph) if _is_number(node)}
        self._calls = [node for node in self._marked.graph.nodes if _marks.is_mark(node)]
        plain = marked
        if self._calls:
            plain = fx.GraphModule(marked, _marks.without_marks(marked.graph))
            plain.meta.update(marked.meta)
        layout, began = Layout(self._marked.graph), time.perf_counter()
        self._compiled = compile(plain, examples)
        cost = time.perf_counter() - began
        self._taps = Taps(self._marked, self._numbers, layout, compile, self._compiled, cost)
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
        """Calls the graph outside of runs. Calls of modules in it may be runs."""
        modules = _marks.Modules(_caller())
        if watched.outermost is not None:
            return self._watched(modules, args)
        called = [modules.of(mark) for mark in self._calls]
        roots = [root for root in watched.all() if any(module is root.module() for module in called)]
        if roots and not any(root.changes for root in roots):
            self._look(modules, args, None)
        # Another thread may have opened a block meanwhile. Its patches hold in the runs that this call made.
        if any(root.changes for root in roots):
            return self._replay(modules, args)
        return self._compiled(*args)

    def _watched(self, modules: _marks.Modules, args: tuple[Any, ...]) -> Any:
        """The same under `graphpatch run`, where it is known only after a run has begun whether it has patches."""
        thread.plan = 0
        before = Before(arg for arg in args if is_a(arg, Tensor))
        try:
            result = self._replay(modules, args)
            if thread.plan:
                return result
        except PatchError:
            raise
        except Exception as error:  # a failure of this library must not end the program
            if is_handlers(error):
                raise
            note_failure("a compiled function", "its inside was not seen", error)
        before.restore()
        return self._compiled(*args)

    def _inside(self, frame: Frame, args: tuple[Any, ...]) -> Any:
        """Calls the graph inside a scope of this thread's run."""
        changes = frame.root.may_change(frame.plan)
        records = bool(frame.wants & GP_WANTS_RECORD)
        if frame.plan and not records:
            done = self._by_taps(frame, args, changes)
            if done is not None:
                return done[0]
            # Parameters have no taps; they are read by a run of their own.
            if thread.only_taps is not None and not frame.by_parameter:
                self._note_replay(frame, thread.only_taps)
        if changes:
            return self._replay(_marks.Modules(_caller()), args)
        if frame.plan or records:
            self._look(_marks.Modules(_caller()), args, frame)
        thread.frame = frame.root.cold
        try:
            with hidden(True):
                return self._compiled(*args)
        finally:
            thread.frame = frame

    def _note_replay(self, frame: Frame, noted: set[str]) -> None:
        """The values of compiled code were asked for, and cannot be had."""
        name = class_name(frame.module)
        noted.add(name)
        if frame.root.session is None:
            why = "; taps need torch.no_grad()" if torch.is_grad_enabled() else ""
            note(None, f"{name}: {ONE_BY_ONE}{why}")

    def _by_taps(self, frame: Frame, args: tuple[Any, ...], changes: bool) -> tuple[Any] | None:
        """The result of compiled code that applies the run's patches by taps; None if there is no such code."""
        inner: types.FrameType | None = sys._getframe()

        def replay(make: Callable[..., Replay]) -> None:
            if inner is not None:
                self._replay(_marks.Modules(_caller(inner)), args, make)

        thread.frame = frame.root.cold
        try:
            with hidden(True):
                tapped = self._taps.fitting(frame, replay, args, changes)
                return None if tapped is None else (self._taps.run(tapped, args, changes),)
        finally:
            thread.frame = frame
            inner = None  # it would hold itself, and the arguments, until garbage is collected

    def _replay(self, modules: _marks.Modules, args: tuple[Any, ...], make: Callable[..., Replay] = Replay) -> Any:
        """Computes the graph operation by operation."""
        compiled, began = thread.compiled, time.perf_counter()
        thread.in_compiled(None)
        try:
            with hidden(False):
                return make(self._marked, self._numbers, modules, args).run()
        finally:
            thread.in_compiled(compiled)
            self._taps.spent += time.perf_counter() - began

    def _look(self, modules: _marks.Modules, args: tuple[Any, ...], frame: Frame | None) -> None:
        """Runs the graph only to show its values. Afterwards the arguments and the random numbers are as before."""
        with hidden(True):
            before = Before(arg for arg in args if is_a(arg, Tensor))
        try:
            with torch.no_grad():
                self._replay(modules, args)
        except Exception as error:
            if frame is None or is_handlers(error):
                raise
            spare(frame.root, frame.module, error)
        finally:
            with hidden(True):
                before.restore()


def _inputs(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op == "placeholder"]


def _is_number(node: fx.Node) -> bool:
    return bool(getattr(node.meta.get("grapharg"), "pass_arg_as_tensor", False))


def _caller(inner: types.FrameType | None = None) -> types.FrameType:
    """The frame of the function that was captured: the first one, from ``inner`` outwards, that is neither this
    package's nor torch.compile's."""
    frame = inner or sys._getframe(1)
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
