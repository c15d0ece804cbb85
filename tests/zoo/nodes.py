"""The nodes of a recorded graph, read from the file that it is saved to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Operations that may return their operand itself. Then no operation below autograd is called.
HANDING_ON = (
    "aten::to",
    "aten::contiguous",
    "aten::dropout",
    "aten::feature_dropout",
    "aten::type_as",
    "aten::reshape",
    "aten::expand_as",
    "aten::lift_fresh",
    "aten::resolve_",
)
VIEWS = ("aten::slice", "aten::select", "aten::view", "aten::unsqueeze", "aten::transpose", "aten::flatten")
FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass
class Leaf:
    """A value of a node, or an element of one."""

    path: str
    dig: list[str]
    dtype: str
    """Of a tensor; the kind of a plain value."""
    is_tensor: bool

    @property
    def is_float(self) -> bool:
        return self.is_tensor and self.dtype in FLOATS


@dataclass
class Node:
    path: str
    kind: str
    target: str
    """An operation's schema; a parameter's attribute path below the module that is the root."""
    module_path: str
    unwritten: bool = False
    """Whether it shows memory that was made without a value (`torch.empty`): what a probe keeps is anything."""
    leaves: list[Leaf] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    def walk(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            yield from child.walk()


def read(file: Path) -> Node:
    """The root of a file with one graph."""
    (graph,) = json.loads(file.read_text(encoding="utf-8"))["graphs"]
    return _node(graph["root"], "")


def _node(saved: dict[str, Any], path: str) -> Node:
    node = Node(path, saved["kind"], saved.get("target", ""), saved.get("module_path", ""))
    if saved["kind"] != "scope":
        node.leaves = list(_leaves(saved.get("value", "NoneType"), path, []))
    unwritten: set[str] = set()
    for child in saved.get("children", ()):
        made = _node(child, f"{path}.{child['name']}" if path else child["name"])
        made.unwritten = _is_unwritten(child, unwritten)
        if made.unwritten:
            unwritten.add(child["name"])
        node.children.append(made)
    return node


def _is_unwritten(saved: dict[str, Any], unwritten: set[str]) -> bool:
    """Whether the value is uninitialized memory (of `empty`), or a view of such memory in the same scope."""
    target = saved.get("target", "")
    if saved["kind"] != "op":
        return False
    if target.startswith(("aten::empty", "aten::new_empty")):
        return True
    operands = saved.get("args", ())
    first = operands[0] if operands else None
    shown = isinstance(first, dict) and str(first.get("node", "")).partition("|")[0] in unwritten
    return shown and target.startswith((*VIEWS, *HANDING_ON))


def _leaves(value: Any, path: str, dig: list[str]) -> Iterator[Leaf]:
    elements: list[tuple[str, Any]]
    if value in ("str", "complex"):  # no patch can keep or change one
        return
    if isinstance(value, str):
        yield Leaf("|".join(filter(None, [path, ".".join(dig)])), dig, value, False)
        return
    ((kind, held),) = value.items()
    if kind == "tensor":
        yield Leaf("|".join(filter(None, [path, ".".join(dig)])), dig, held["dtype"], True)
        return
    if kind == "other":  # an object, no leaf: no patch can stand there
        return
    if kind == "dict":
        elements = [(name, element) for name, element in held]
    elif kind in ("tuple", "list"):
        elements = [(f"sub_{index}", element) for index, element in enumerate(held)]
    else:
        raise ValueError(f"{path}: a value of a kind that this reader does not know: {value}")
    for name, element in elements:
        yield from _leaves(element, path, [*dig, name])
