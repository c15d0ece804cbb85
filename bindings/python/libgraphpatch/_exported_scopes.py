"""The calls of modules that the operations of an exported program were made in, as a tree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import fx


class ScopeCall:
    """One call of a module.

    Args:
        key: Distinguishes it from other calls of the same module.
        path: The module's attribute path below the model's.
        kind: The full name of its class.
    """

    def __init__(self, key: str, path: str, kind: str) -> None:
        self.key, self.path, self.kind = key, path, kind
        # Operations and calls in order.
        self.items: list[fx.Node | ScopeCall] = []

    def nodes(self) -> Iterator[fx.Node]:
        """All nodes in it, at any depth."""
        for item in self.items:
            if isinstance(item, fx.Node):
                yield item
            else:
                yield from item.nodes()


def scopes_of(graph: fx.Graph) -> ScopeCall | None:
    """The call of the model itself, with all calls below it. None if the operations of a call are not adjacent in the
    graph."""
    root = ScopeCall("", "", "")
    opened = [root]
    closed: set[str] = set()
    for node in graph.nodes:
        stack = _stack(node)
        if node.op in ("placeholder", "get_attr", "output"):
            if node.op == "output":
                del opened[1:]
            opened[0 if node.op == "output" else -1].items.append(node)
            continue
        if stack is not None:
            depth = _common(opened, stack)
            closed.update(call.key for call in opened[depth:])
            del opened[depth:]
            for key, path, kind in stack[depth - 1 :]:
                if key in closed:
                    return None
                call = ScopeCall(key, path, kind)
                opened[-1].items.append(call)
                opened.append(call)
        opened[-1].items.append(node)
    return root


def _common(opened: list[ScopeCall], stack: list[tuple[str, str, str]]) -> int:
    """How many of the open calls, the model's included, contain an operation with this stack."""
    depth = 1
    while depth < len(opened) and depth <= len(stack) and opened[depth].key == stack[depth - 1][0]:
        depth += 1
    return depth


def _stack(node: fx.Node) -> list[tuple[str, str, str]] | None:
    """The calls in which a node was made, outermost first, without the model's own. None if the node does not say."""
    modules: dict[str, Any] = node.meta.get("nn_module_stack") or {}
    found = []
    for key, (path, kind) in modules.items():
        if key.startswith("_empty_nn_module_stack"):
            return None
        name = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
        # A list of modules is never called itself.
        if path and not name.endswith((".ModuleList", ".ModuleDict")):
            found.append((str(key), str(path), name))
    return found if modules else None
