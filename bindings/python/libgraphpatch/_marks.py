"""Marks of module calls in the graphs that torch.compile captures: where a call begins, with its arguments, and where
it ends, with its result. What is compiled has none of them.

While torch.compile traces a call of a module, it is given :func:`_call` instead, a Python function that it traces too.
Each of the two marks becomes one node of the captured graph. It takes the leaves of the values, and returns the tensors
among them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import re
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import Module

_TENSOR = "T"
_NUMBER = "P"

_ELEMENT = re.compile(r"getitem(_\d+)?")

# The modules whose call torch.compile is tracing. Each call is met twice: the second time it comes from `_call`.
_looked_through: list[Module] = []


def enter(_module: str, _form: Any, *leaves: Any) -> list[Tensor]:
    """The mark of the beginning of a module's call. The leaves are those of its arguments."""
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def leave(_module: str, _form: Any, *leaves: Any) -> list[Tensor]:
    """The mark of the end of a module's call. The leaves are those of its result."""
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


# torch.compile traces these functions. It names a tensor in the graph after the variable that holds it. So these
# functions put no tensor into a variable of their own.


def _form(value: Any, leaves: list[Any]) -> Any:
    """The structure of ``value``. Its tensors and numbers are added to ``leaves``."""
    if isinstance(value, Tensor):
        leaves.append(value)
        return _TENSOR
    if value is None:
        return None
    if isinstance(value, (bool, int, float)):
        leaves.append(value)
        return _NUMBER
    if type(value) is tuple:
        return ("(", *[_form(value[at], leaves) for at in range(len(value))])
    if type(value) is list:
        return ("[", *[_form(value[at], leaves) for at in range(len(value))])
    if type(value) is dict:
        return ("{", *[(key, _form(value[key], leaves)) for key in value])
    if isinstance(value, str):
        return ("S", value)
    if _is_record(value):
        return ("{", *[(key, _form(value[key], leaves)) for key in list(value)])
    return ("O", type(value).__name__)


def _replaced(value: Any, tensors: list[Tensor]) -> Any:
    """``value`` with these tensors in the place of its own."""
    if isinstance(value, Tensor):
        return tensors.pop(0)
    if type(value) is tuple:
        return tuple([_replaced(value[at], tensors) for at in range(len(value))])
    if type(value) is list:
        return [_replaced(value[at], tensors) for at in range(len(value))]
    if type(value) is dict:
        return {key: _replaced(value[key], tensors) for key in value}
    if _is_record(value):
        for key in list(value):
            value[key] = _replaced(value[key], tensors)
    return value


def _is_record(value: Any) -> bool:
    """Whether ``value`` is an output of a transformers model, which is both a dict and a dataclass."""
    return isinstance(value, OrderedDict) and dataclasses.is_dataclass(value)


def _entered(module_at: str, call: Any) -> Any:
    """The arguments of a call, as the mark of its beginning returns them."""
    leaves: list[Any] = []
    form = _form(call, leaves)
    return _replaced(call, list(enter(module_at, form, *leaves)))


def _left(module_at: str, output: Any) -> Any:
    """The result of a call, as the mark of its end returns it."""
    leaves: list[Any] = []
    form = _form(output, leaves)
    return _replaced(output, list(leave(module_at, form, *leaves)))


def _apply(module: Module, call: Any) -> Any:
    return module(*call[0], **call[1])


def _call(module_at: str, module: Module, *args: Any, **kwargs: Any) -> Any:
    """A call of ``module`` between its marks. torch.compile traces this function; it never runs."""
    return _left(module_at, _apply(module, _entered(module_at, (args, kwargs))))


def install() -> None:
    """Has torch.compile mark the calls of modules that it traces from now on."""
    variables: Any = importlib.import_module("torch._dynamo.variables")
    kind: Any = variables.UnspecializedNNModuleVariable
    constant, function = variables.ConstantVariable, variables.UserFunctionVariable
    torch._dynamo.allow_in_graph(enter)
    torch._dynamo.allow_in_graph(leave)
    original: Callable[..., Any] = kind.call_function

    def call_function(self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
        module = self.value
        if _looked_through and _looked_through[-1] is module:
            _looked_through.pop()
            return original(self, tx, args, kwargs)
        if self.source is None or isinstance(module, torch.jit.ScriptModule):
            return original(self, tx, args, kwargs)
        depth = len(_looked_through)
        _looked_through.append(module)
        try:
            where = constant.create(_name(self.source))
            return function(_call).call_function(tx, [where, self, *args], kwargs)
        finally:
            del _looked_through[depth:]

    kind.call_function = call_function


def _name(source: Any) -> str:
    """Where torch.compile has found a value, as an expression of its own: ``L`` holds the local variables of the
    function that it captures, ``G`` the global ones."""
    name = source.name
    return str(name() if callable(name) else name)


class Modules:
    """The modules that the marks of a graph stand for in one call of the graph. The same graph may be called for
    several modules, such as each layer of a model.

    Args:
        caller: The frame of the function that was captured.
    """

    def __init__(self, caller: types.FrameType) -> None:
        self._names = {"L": caller.f_locals, "G": caller.f_globals}
        self._known: dict[str, Module | None] = {}

    def of(self, mark: fx.Node) -> Module | None:
        """The module whose call the mark stands for, if it can be found."""
        where = str(mark.args[0])
        if where not in self._known:
            found = None
            with contextlib.suppress(Exception):
                found = eval(where, dict(self._names))
            self._known[where] = found if isinstance(found, Module) else None
        return self._known[where]


def is_mark(node: fx.Node) -> bool:
    return node.op == "call_function" and node.target in (enter, leave)


def is_single(mark: fx.Node) -> bool:
    """Whether the value of the mark is one tensor."""
    return bool(mark.args[1] == _TENSOR)


def value_of(form: Any, leaves: Iterator[Any]) -> Any:
    """The value with this structure and these leaves. In place of any other object stands one of a class of that
    name."""
    if form in (_TENSOR, _NUMBER):
        return next(leaves)
    if form is None:
        return None
    kind, *elements = form
    if kind == "S":
        return elements[0]
    if kind == "O":
        return type(elements[0], (), {})()
    if kind == "{":
        return {key: value_of(element, leaves) for key, element in elements}
    values = [value_of(element, leaves) for element in elements]
    return tuple(values) if kind == "(" else values


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors of a value that :func:`value_of` has made, or of the same value as patches have changed it."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for element in value.values() for tensor in tensors_of(element)]
    if isinstance(value, (tuple, list)):
        return [tensor for element in value for tensor in tensors_of(element)]
    return []


def without_marks(graph: fx.Graph) -> fx.Graph:
    """The graph without marks, as the program would have it without this package."""
    plain = fx.Graph()
    of: dict[fx.Node, fx.Node] = {}
    tensors: dict[fx.Node, list[Any]] = {}
    output = None
    for node in graph.nodes:
        if is_mark(node):
            tensors[node] = [leaf for leaf in node.args[2:] if is_tensor(leaf)]
        elif is_part_of_mark(node):
            of[node] = of[tensors[node.args[0]][node.args[1]]]
        elif node.op == "output":
            output = node
        else:
            of[node] = plain.node_copy(node, of.__getitem__)
    if output is not None:
        plain.node_copy(output, of.__getitem__)
    _number_elements(plain)
    return plain


def _number_elements(graph: fx.Graph) -> None:
    """Names the nodes that take elements out of tuples anew, in order: those of the marks had taken some of the
    names."""
    elements = [node for node in graph.nodes if _ELEMENT.fullmatch(node.name)]
    for node in elements:
        node._rename("element of a tuple")
    for node in elements:
        node._rename("getitem")


def is_part_of_mark(node: fx.Node) -> bool:
    holder = node.args[0] if node.args else None
    return node.op == "call_function" and isinstance(holder, fx.Node) and is_mark(holder)


def is_tensor(leaf: Any) -> bool:
    if not isinstance(leaf, fx.Node):
        return False
    return isinstance(leaf.meta.get("example_value"), Tensor)
