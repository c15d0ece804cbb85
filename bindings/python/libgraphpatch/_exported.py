"""Exported programs (``torch.export``). Their graph is flat, and each operation in it names the modules in which it was
called. A run of such a program is shown with these modules as scopes, under the names of the model that was exported.

The program does not contain the arguments of the modules. The input of a module is shown only where it is certain: the
module's class can be found here and takes one argument, and exactly one tensor comes into the call.
"""

from __future__ import annotations

import copy
import inspect
import operator
import sys
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import Module

from . import _marks
from ._dispatch_key import hidden
from ._exported_scopes import ScopeCall, scopes_of
from ._modules import class_name, note
from ._replay import Replay
from ._root import Root
from ._scope import Attribute, Scope
from ._thread import Frame, thread

# The module of an exported program that checks what was assumed of its inputs.
_GUARDS = "_guards_fn"
# Operations of the program for sizes and checks, to which no operation of the model corresponds.
_UNSEEN = ("sym_size", "sym_stride", "sym_numel", "sym_storage_offset", "sym_constrain_range", "_assert_")


def prepare(root: Root) -> None:
    """Has the runs of a root that is an exported program show its scopes."""
    module = root.module()
    if module is None or not is_program(module):
        return
    root.inner = _Program(module, root)


def is_program(module: Module) -> bool:
    """Whether a module is an exported program."""
    if not isinstance(module, fx.GraphModule):
        return False
    nodes = list(module.graph.nodes)
    if any(node.op == "call_module" and node.target != _GUARDS for node in nodes):
        return False
    return any(isinstance(node.target, torch._ops.OpOverload) and node.meta.get("nn_module_stack") for node in nodes)


def class_of(module: Module) -> str:
    """The qualified name of a module's class; for an exported program, of the class that was exported."""
    if is_program(module):
        for node in module.graph.nodes:
            for path, kind in node.meta.get("nn_module_stack", {}).values():
                if not path and kind:
                    return str(kind).rpartition(".")[2] if isinstance(kind, str) else str(kind.__qualname__)
    return str(type(module).__qualname__)


class _Program:
    """Makes the call of an exported program in a run."""

    def __init__(self, module: fx.GraphModule, root: Root) -> None:
        self._kind: Any = None
        self._session = root.session
        self._code: Any = None
        self._parts = _Parts()
        self._arrange(module)

    def __call__(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        if module._code is not self._code:
            self._arrange(module)  # its graph was changed since
        # The same module with another forward. It shares the module's __dict__, and so its present hooks and tensors.
        twin = object.__new__(self._kind)
        object.__setattr__(twin, "__dict__", module.__dict__)
        return twin._call_impl(*args, **kwargs)

    def _arrange(self, module: fx.GraphModule) -> None:
        marked = _marked(module, self._parts)
        if marked is None:
            note(
                self._session,
                f"{class_name(module)}: its operations were reordered across modules, so that its scopes cannot be"
                " found: they are listed one after the other",
            )
            marked = _flat(module)
        flat_inputs, parts = _flat_inputs(module), self._parts

        def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
            inputs = flat_inputs(*args, **kwargs)
            return marked.process_outputs(Replay(self, set(), parts, inputs).run())

        self._kind = type(type(module).__name__, (type(module),), {"forward": forward, "graph": marked})
        self._code = module._code


class _Parts(_marks.Modules):
    """Stand-ins for the modules of the exported model, of which the program has only names and classes."""

    def __init__(self) -> None:
        self._parts: dict[str, Module] = {}
        self._paths: dict[int, str] = {}

    def make(self, call: ScopeCall, names: list[str]) -> None:
        """Makes the stand-in of the module that is called."""
        if call.path not in self._parts:
            part = self._parts[call.path] = _part(call.kind, names)
            self._paths[id(part)] = call.path

    def of(self, mark: fx.Node) -> Module | None:
        part, frame = self._parts[str(mark.args[0])], thread.frame
        if type(frame) is Frame:
            key = id(frame.module), id(part)
            known = frame.root.scopes.get(key)
            if known is None or not known.is_current(part):
                absolute = self._paths[id(part)]
                path = self._below(frame, absolute)
                frame.root.scopes[key] = Scope(part, Attribute(None, ""), path, absolute, False)
        return part

    def _below(self, frame: Frame, absolute: str) -> str:
        """The module's path below the nearest enclosing module of which it is a part."""
        outer: Frame | None = frame
        while outer is not None:
            above = self._paths.get(id(outer.module))
            if above is not None and absolute.startswith(above + "."):
                return absolute[len(above) + 1 :]
            outer = outer.outer
        return absolute


def _part(kind: str, names: list[str]) -> Module:
    def forward(self: Any, *args: Any) -> None:
        """Never called."""

    owner, _, name = kind.rpartition(".")
    own = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ["self", *names]]
    forward.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
    made: Module = type(name, (Module,), {"forward": forward, "__module__": owner, "__qualname__": name})()
    return made


def _argument(kind: str) -> str | None:
    """The name of the argument of a class of modules; None if the class is not imported, or takes more or fewer than
    one."""
    owner, _, name = kind.rpartition(".")
    found: Any = sys.modules.get(owner)
    found = getattr(found, name, None)
    if not isinstance(found, type) or not issubclass(found, Module):
        return None
    known: Any = found
    try:
        own = list(inspect.signature(known.forward).parameters.values())[1:]
    except (TypeError, ValueError):
        return None
    return own[0].name if len(own) == 1 and own[0].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD else None


def _flat_inputs(module: fx.GraphModule) -> Callable[..., tuple[Any, ...]]:
    """A function that flattens the program's arguments, as the program's own code does."""
    graph = fx.Graph()
    inputs = [graph.node_copy(node) for node in module.graph.nodes if node.op == "placeholder"]
    graph.output(tuple(inputs))
    codegen = _without_outputs(module.graph._codegen)
    graph.set_codegen(codegen)
    taken: Callable[..., tuple[Any, ...]] = fx.GraphModule({}, graph).forward
    return taken


def _without_outputs(codegen: Any) -> Any:
    """A copy of the graph's code generator that returns the results flat, as the graph computes them."""
    own = copy.copy(codegen)
    info = getattr(own, "pytree_info", None)
    if info is not None:
        own.pytree_info = info._replace(out_spec=None)
    return own


def _flat(module: fx.GraphModule) -> fx.Graph:
    graph = fx.Graph()
    known: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        known[node] = _copied(graph, module, node, known)
    graph.set_codegen(module.graph._codegen)
    return graph


def _marked(module: fx.GraphModule, parts: _Parts) -> fx.Graph | None:
    """The program's graph with marks where calls of modules begin and end. None if the calls cannot be told apart."""
    root = scopes_of(module.graph)
    if root is None:
        return None
    graph = fx.Graph()
    _emit(graph, module, root, {}, parts)
    graph.set_codegen(module.graph._codegen)
    return graph


def _emit(
    graph: fx.Graph, module: fx.GraphModule, scope: ScopeCall, known: dict[fx.Node, fx.Node], parts: _Parts
) -> None:
    for item in scope.items:
        if isinstance(item, fx.Node):
            known[item] = _copied(graph, module, item, known)
        else:
            _emit_call(graph, module, item, known, parts)


def _emit_call(
    graph: fx.Graph, module: fx.GraphModule, call: ScopeCall, known: dict[fx.Node, fx.Node], parts: _Parts
) -> None:
    inside = set(call.nodes())
    entering, argument = _entering(inside, call), _argument(call.kind)
    if argument is None or len(entering) != 1:
        entering = []
    parts.make(call, [argument] if entering and argument is not None else [])
    form = ("(", ("(", *["T"] * len(entering)), ("{",))
    begin = graph.call_function(_marks.enter, (call.path, form, *[known[value] for value in entering]))
    outer = {value: known[value] for value in entering}
    for at, value in enumerate(entering):
        known[value] = graph.call_function(operator.getitem, (begin, at))
    _emit(graph, module, call, known, parts)
    result: Any
    leaving = [node for node in call.nodes() if any(user not in inside for user in node.users)]
    shown = [node for node in leaving if _is_tensor(node)]
    if len(shown) < len(leaving) and any(isinstance(node.meta.get("val"), (list, tuple)) for node in leaving):
        shown, result = [], ("O", "list")
    else:
        result = "T" if len(shown) == 1 else ("(", *["T"] * len(shown)) if shown else None
    end = graph.call_function(_marks.leave, (call.path, result, *[known[value] for value in shown]))
    for at, value in enumerate(shown):
        known[value] = graph.call_function(operator.getitem, (end, at))
    known.update(outer)


def _entering(inside: set[fx.Node], call: ScopeCall) -> list[fx.Node]:
    """The tensors that come into a call, in the order of their use, without parameters and buffers."""
    used: dict[fx.Node, None] = {}
    for node in call.nodes():
        for value in node.all_input_nodes:
            if value not in inside and value.op != "get_attr" and _is_tensor(value):
                used[value] = None
    return list(used)


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)


def _copied(graph: fx.Graph, module: fx.GraphModule, node: fx.Node, known: dict[fx.Node, fx.Node]) -> fx.Node:
    copied = graph.node_copy(node, known.__getitem__)
    if node.op == "call_module":
        copied.op, copied.target = "call_function", _Guards(weakref.ref(module), str(node.target))
    elif isinstance(node.target, torch._ops.OpOverload) and node.target.__name__.startswith(_UNSEEN):
        copied.target = _Unseen(node.target)
    return copied


class _Unseen:
    """A call in the program that the model does not have. It is hidden from the run."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.__name__ = self.__qualname__ = "unseen"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with hidden(True):
            return self._function(*args, **kwargs)


class _Guards(_Unseen):
    """The program's check of its inputs."""

    def __init__(self, program: weakref.ref[fx.GraphModule], name: str) -> None:
        super().__init__(lambda *args: getattr(program(), name).forward(*args))
