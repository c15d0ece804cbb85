"""Runs a captured graph operation by operation. Each call of a module in it becomes a scope of this thread's run, or a
run of its own, as without torch.compile.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from torch import fx
from torch.nn import Module

from . import _marks
from ._dispatch_key import hidden
from ._module_call import call_module
from ._thread import thread

# File, line, function and text.
SourceLine = tuple[str, int, str, str]

_LINE = re.compile(r'^ *File "(.*)", line (\d+), in (.*)\n(?: *(.*)\n)?', re.MULTILINE)


class Replay:
    """One run of a captured graph.

    Args:
        captured: The graph, with its marks.
        numbers: The names of its inputs that are numbers to the program.
        modules: The modules that the marks stand for.
    """

    def __init__(
        self, captured: fx.GraphModule, numbers: set[str], modules: _marks.Modules, args: tuple[Any, ...]
    ) -> None:
        self._nodes = list(captured.graph.nodes)
        self._modules, self._numbers = modules, numbers
        self._interpreter = fx.Interpreter(captured, garbage_collect_values=False)
        self._interpreter.args_iter = iter(args)
        self._values = self._interpreter.env
        self._last = _last_uses(self._nodes)
        self._at = 0

    def run(self) -> Any:
        """Runs the graph and returns its result."""
        outer = thread.called_from
        try:
            return self._until_mark()
        finally:
            thread.called_from = outer

    def _until_mark(self) -> Any:
        """Runs the next nodes, up to the mark that ends the call that they are in. Returns that mark or, outside of all
        calls, the graph's result."""
        while True:
            node = self._nodes[self._at]
            self._at += 1
            if _marks.is_mark(node):
                if node.target is _marks.leave:
                    return node
                self._call(node)
            else:
                thread.called_from = node.meta.get("stack_trace")
                value = self._run(node)
                if node.op == "output":
                    return value
                self._values[node] = value
            self._forget(node)

    def _call(self, begin: fx.Node) -> None:
        """Makes the call of a module whose beginning the mark ``begin`` stands for."""
        args, kwargs = self._value(begin, 1)
        ended: list[fx.Node] = []

        def inside(_module: Module | None, *args: Any, **kwargs: Any) -> Any:
            self._values[begin] = _marks.tensors_of((args, kwargs))
            end = self._until_mark()
            ended.append(end)
            return self._value(end, 1)

        module = self._modules.of(begin)
        thread.called_from = begin.meta.get("stack_trace")
        if module is None:
            output = inside(module, *args, **kwargs)
        else:
            output = call_module(module, args, kwargs, inside)
        self._values[ended[0]] = _marks.tensors_of(output)
        self._forget(ended[0])

    def _run(self, node: fx.Node) -> Any:
        if node.target == "item" and isinstance(node.args[0], fx.Node) and node.args[0].name in self._numbers:
            with hidden(True):
                return self._interpreter.run_node(node)
        return self._interpreter.run_node(node)

    def _value(self, mark: fx.Node, at: int) -> Any:
        """The value that the mark's argument number ``at`` describes, made of the mark's leaves."""
        leaves: Iterator[Any] = iter([fx.node.map_arg(leaf, self._values.__getitem__) for leaf in mark.args[2:]])
        return _marks.value_of(mark.args[at], leaves)

    def _forget(self, node: fx.Node) -> None:
        for done in self._last.get(node, ()):
            self._values.pop(done, None)


def _last_uses(nodes: list[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    """For each node, the nodes whose values are not needed after it."""
    last: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        last[node] = node
        for used in node.all_input_nodes:
            last[used] = node
    done: dict[fx.Node, list[fx.Node]] = {}
    for used, node in last.items():
        done.setdefault(node, []).append(used)
    return done


def source_lines(trace: str, is_users: Callable[[str], bool]) -> list[SourceLine]:
    """The user's lines in a node's stack trace, innermost last."""
    found = []
    for file, line, function, text in _LINE.findall(trace):
        if is_users(file):
            found.append((file, int(line), function, text.strip()))
    return found
