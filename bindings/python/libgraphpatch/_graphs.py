"""Recorded graphs as the library had them at one moment. They never change; any thread may read them.

A path is text, as :class:`libgraphpatch.NodePath` prints it; "" is the root.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from ._handle import Handle
from ._header import GP_VALUE_KIND_BOOL, GP_VALUE_KIND_FLOAT, GP_VALUE_KIND_INT, GP_VALUE_KIND_NONE, gp_node
from ._library import check, lib, sized, taken, text, texts

_NUMBERS = GP_VALUE_KIND_INT | GP_VALUE_KIND_FLOAT | GP_VALUE_KIND_BOOL


def is_number(node: gp_node) -> bool:
    """Whether a leaf was a plain number whenever it was seen, or None."""
    numbers = node.seen & ~GP_VALUE_KIND_NONE
    return bool(numbers) and not numbers & ~_NUMBERS


def nodes_below(node: dict[str, Any], around: str = "") -> Iterator[tuple[str, dict[str, Any], str]]:
    """All nodes below one of a graph as a file has it, in order: the path of each, the node, and the path of its scope
    with a dot behind it."""
    for child in node.get("children", []):
        path = around + child["name"]
        yield path, child, around
        yield from nodes_below(child, f"{path}.")


class Graphs:
    """The graphs of a session or of a file, one for each root that was called."""

    def __init__(self, address: int) -> None:
        self.handle = Handle(lib.gp_graphs_free, address)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a recorded graph cannot be pickled: save it with `pg.save_graph(file)`")

    def save(self, file: str | os.PathLike[str]) -> None:
        """Writes all of them as JSON. Raises OSError."""
        check(lib.gp_graphs_save(self.handle, str(file).encode()))

    def check(self, paths: Sequence[str]) -> int:
        """The status of a check that each path names a leaf; the library's message names all that do not."""
        status: int = lib.gp_graphs_check(self.handle, texts(paths), len(paths))
        return status

    def graph(self, index: int) -> Graph:
        """Graph number ``index``. Raises ValueError where there are not so many."""
        graph = Graph(self, index)
        graph.node("")
        return graph


def _root_of(graph: str) -> dict[str, Any]:
    root: dict[str, Any] = json.loads(graph)["root"]
    return root


class Graph:
    """One graph. Each call raises :class:`libgraphpatch.errors.PathError`, a KeyError, for a path that is not there,
    and ValueError for text that is no path."""

    __slots__ = ("_whole", "graphs", "index")

    def __init__(self, graphs: Graphs, index: int) -> None:
        self.graphs, self.index = graphs, index
        self._whole: dict[str, Any] | None = None

    def whole(self) -> dict[str, Any]:
        """The root and all below it, as a file has them: nodes with ``name``, ``kind``, ``target``, ``args`` ..."""
        whole = self._whole
        if whole is None:
            whole = self._whole = _root_of(text(lib.gp_graphs_json, self.graphs.handle, self.index))
        return whole

    def node(self, path: str) -> gp_node:
        """What is known of the node, or of the element."""
        node = sized(gp_node)
        check(lib.gp_graphs_node(self.graphs.handle, self.index, path.encode(), ctypes.byref(node)))
        return node

    def sizes(self, path: str, rank: int) -> list[tuple[int, int]]:
        """For each of a tensor's dimensions the smallest and the largest size that was seen."""
        smallest, largest = (ctypes.c_int64 * rank)(), (ctypes.c_int64 * rank)()
        check(lib.gp_graphs_sizes(self.graphs.handle, self.index, path.encode(), smallest, largest, rank))
        return list(zip(smallest, largest, strict=True))

    def children(self, path: str) -> dict[str, str]:
        """The paths of the nodes in a scope, or of the elements of a container, by name and in order. An element of a
        dict whose key is "" is left out, since no path can name it."""
        below = {}
        for number in range(self.node(path).children):
            name, child = ctypes.c_void_p(), ctypes.c_void_p()
            out = ctypes.byref(name), ctypes.byref(child)
            check(lib.gp_graphs_child(self.graphs.handle, self.index, path.encode(), number, *out))
            below[taken(name.value or 0)] = taken(child.value or 0)
        below.pop("", None)
        return below

    def find(self, path: str, below: str) -> str:
        """The path of what ``below`` names, as seen from ``path``."""
        return text(lib.gp_graphs_find, self.graphs.handle, self.index, path.encode(), below.encode())

    def search(
        self, pattern: str | None = None, op: str | None = None, module: str | None = None, shape: str | None = None
    ) -> list[str]:
        """The paths of the nodes that meet all given conditions, in order. If a shape is given, these are tensors
        only."""
        asked = [None if text is None else text.encode() for text in (pattern, op, module, shape)]
        return text(lib.gp_graphs_search, self.graphs.handle, self.index, *asked).splitlines()

    def tree(self, path: str) -> str:
        return text(lib.gp_graphs_tree, self.graphs.handle, self.index, path.encode())

    def code(self, path: str) -> str:
        return text(lib.gp_graphs_code, self.graphs.handle, self.index, path.encode())
