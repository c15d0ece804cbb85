"""A captured graph with taps: behind a value that is wanted stands an operator of the library's, which applies the
patches of the run there. The backend compiles it like any other operation, and its caches know it by its text.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from . import _marks

# Python's operators that write into their first argument.
_WRITING = frozenset(
    {operator.setitem, operator.delitem}.union(
        function
        for name, function in vars(operator).items()
        if name.startswith("i") and f"__{name[1:]}__" in vars(operator)
    )
)


class Layout:
    """What is known of a captured graph with marks while its values have examples.

    Attributes:
        tensors: For each mark, the tensors among its leaves.
        in_place: For each value that may be tapped, whether the tap may write into it: no other value shares its
            memory, or the operation has just written into the operand that it returns. Any other value that shares
            memory is copied; the tap writes into the copy, which is used instead of it.
        dynamic: Whether a size of an input may differ from call to call.
    """

    def __init__(self, graph: fx.Graph) -> None:
        nodes = list(graph.nodes)
        self.tensors: dict[fx.Node, list[fx.Node]] = {
            node: [leaf for leaf in node.args[2:] if _marks.is_tensor(leaf)] for node in nodes if _marks.is_mark(node)
        }
        self.ends = _ends(nodes)
        self.in_place: dict[fx.Node, bool] = {}
        inputs = [node.meta.get("example_value") for node in nodes if node.op == "placeholder"]
        self.dynamic = any(_is_dynamic(value) for value in inputs)
        written = _last_writes(nodes)
        seen: set[int] = set()
        transforms = 0
        for at, node in enumerate(nodes):
            memory = set(_memory(node.meta.get("example_value")))
            transforms += _nesting(node)
            if transforms:
                pass  # the tap's operator has no rule for the batches of vmap, or for the levels of grad and jvp
            elif _is_plain(node.meta.get("example_value")):
                in_place = _in_place(node, not memory & seen, all(written.get(m, -1) < at for m in memory))
                if in_place is not None:
                    self.in_place[node] = in_place
            seen |= memory

    def output(self, begin: fx.Node) -> fx.Node | None:
        """The node to tap for the output of the call that this mark begins: the tensor that the mark of the call's end
        returns. None if the call returns anything else than one tensor."""
        end = self.ends.get(begin)
        if end is None or not _marks.is_single(end):
            return None
        parts = [user for user in end.users if user in self.in_place]
        return parts[0] if len(parts) == 1 and len(end.users) == 1 else None


def with_taps(
    layout: Layout, graph: fx.Graph, sites: Mapping[fx.Node, str], numbers: Mapping[fx.Node, Any]
) -> fx.Graph:
    """The graph without marks, with a tap at each of the sites.

    Args:
        sites: The values, by the node that computes them or takes them out of a mark, with their paths.
        numbers: The values of inputs that are numbers to the program.
    """
    plain = fx.Graph()
    of: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        if node in layout.tensors:
            continue
        if node.target == "item" and node.args[0] in numbers:
            of[node] = numbers[node.args[0]]
            continue
        part = _marks.is_part_of_mark(node)
        if part:
            leaf = layout.tensors[node.args[0]][node.args[1]]
            of[node] = of[leaf]
            in_place = layout.in_place.get(leaf, False) and set(leaf.users) == {node.args[0]}
        else:
            copied = plain.node_copy(node, of.__getitem__)
            of[node] = numbers.get(node, copied)
            in_place = layout.in_place.get(node, False)
        if node in sites:
            if not in_place:
                of[node] = plain.call_function(torch.ops.aten.clone.default, (of[node],))
            plain.call_function(torch.ops.graphpatch.tap.default, (of[node], sites[node]))
    return plain


def _nesting(node: fx.Node) -> int:
    """1 where a transform of torch.func begins, as vmap or grad, -1 where one ends, and else 0."""
    name = getattr(node.target, "__name__", "")
    return name.endswith("_increment_nesting") - name.endswith("_decrement_nesting")


def _ends(nodes: list[fx.Node]) -> dict[fx.Node, fx.Node]:
    """For each mark that begins a call, the mark that ends it."""
    ends, open_calls = {}, []
    for node in nodes:
        if _marks.is_mark(node):
            if node.target is _marks.enter:
                open_calls.append(node)
            elif open_calls:
                ends[open_calls.pop()] = node
    return ends


def _memory(value: Any) -> Iterator[int]:
    """Identities of the memory that a value uses."""
    if isinstance(value, Tensor):
        try:
            yield value.untyped_storage()._cdata
        except (NotImplementedError, RuntimeError):  # tensors of some layouts have no storage
            yield id(value)
    elif isinstance(value, (tuple, list)):
        for element in value:
            yield from _memory(element)


def _last_writes(nodes: list[fx.Node]) -> dict[int, int]:
    """For each memory, the place of the last operation that may write to it."""
    last = {}
    for at, node in enumerate(nodes):
        if _writes(node):
            for used in node.all_input_nodes:
                last.update(dict.fromkeys(_memory(used.meta.get("example_value")), at))
    return last


def _in_place(node: fx.Node, fresh: bool, kept: bool) -> bool | None:
    """Whether a tap at the node may write into its value; None if there can be no tap.

    Args:
        fresh: Whether no earlier value has the same memory.
        kept: Whether nothing is written into that memory from here on.
    """
    if node.op not in ("call_function", "call_method") or _marks.is_mark(node):
        return None
    if isinstance(node.target, torch._ops.HigherOrderOperator):
        return None
    if fresh:
        return True
    if _writes(node):
        return True if _is_first_operand(node) else None
    return False if kept else None


def _is_first_operand(node: fx.Node) -> bool:
    """Whether the operation returns its first operand as it is, as operations do that write into it."""
    operand: Any = node.args[0] if node.args else None
    if not isinstance(operand, fx.Node):
        return False
    value, given = node.meta.get("example_value"), operand.meta.get("example_value")
    if not isinstance(value, Tensor) or not isinstance(given, Tensor):
        return False
    places = [(*_memory(each), each.shape, each.stride(), each.storage_offset()) for each in (value, given)]
    return places[0] == places[1]


def _writes(node: fx.Node) -> bool:
    """Whether the operation may write into what it is given."""
    if node.op not in ("call_function", "call_method") or _marks.is_mark(node):
        return False
    if node.target in _WRITING or "out" in node.kwargs or node.kwargs.get("inplace") or _is_inplace(node):
        return True
    if isinstance(node.target, torch._ops.OpOverload):
        return bool(node.target._schema.is_mutable)
    if isinstance(node.target, torch._ops.HigherOrderOperator):
        return True
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "_")
    if name in ("batch_norm", "instance_norm"):
        return not _is_inference(node)
    return (name.endswith("_") and not name.endswith("__")) or name == "__setitem__"


def _is_inference(node: fx.Node) -> bool:
    """Whether a norm reads the statistics that it is given, and does not write into them."""
    fifth = node.args[5] if len(node.args) > 5 else None
    training = node.kwargs.get("training", node.kwargs.get("use_input_stats", fifth))
    return getattr(node.target, "__module__", "") == "torch.nn.functional" and training is False


def _is_inplace(node: fx.Node) -> bool:
    """Whether a positional argument of the call tells the function to write into its first argument (``inplace``)."""
    if isinstance(node.target, str) or True not in node.args:
        return False
    try:
        names = list(inspect.signature(node.target).parameters)
    except (TypeError, ValueError):
        return False
    return any(name == "inplace" and value is True for name, value in zip(names, node.args, strict=False))


def _is_plain(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and not value.is_conj()
        and not value.is_neg()
    )


def _is_dynamic(value: Any) -> bool:
    if isinstance(value, Tensor):
        return any(isinstance(size, torch.SymInt) for size in (*value.shape, *value.stride()))
    return isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool))
