"""The recorded graph for interactive use: nodes are attributes, with tab completion."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeAlias

import torch
from torch.nn import Module

from . import _html
from ._aliases import aliases, meant
from ._graphs import Graph
from ._header import (
    GP_NODE_KIND_SCOPE,
    GP_VALUE_KIND_DICT,
    GP_VALUE_KIND_LIST,
    GP_VALUE_KIND_TENSOR,
    GP_VALUE_KIND_TUPLE,
    gp_node,
)
from .errors import PathError
from .shapes import DictShape, ListShape, TupleShape

# The types of `_shape`. A tensor has its sizes, with a range for each size that differed between runs. A container has
# the shapes of its elements.
Shape: TypeAlias = torch.Size | tuple[int | range, ...] | tuple[Any, ...] | list[Any] | dict[str, Any] | None


class Text(str):
    """Text that a Python prompt shows without quotes and escapes."""

    def __repr__(self) -> str:
        return str(self)


class NodePath:
    """A node of the graph, or an element of a node's container. Its children are its attributes; ``str`` gives its
    path, ``repr`` the tree below it; of the root, which has no path, both give the tree. :meth:`PatchableGraph.patch`
    takes it in place of its path. It never changes, whatever is recorded later, and any thread may use it.

    >>> pg.graph.linear
    linear: Graph(5)
    ├─input: Tensor(3, 2)
    ...
    >>> str(pg.graph.output.sub_0)
    'output|sub_0'
    """

    __slots__ = ("_children", "_graph", "_path")

    def __init__(self, graph: Graph, path: str) -> None:
        self._graph, self._path = graph, path
        self._children: dict[str, str] | None = None

    # --- children ---

    def _below(self) -> dict[str, str]:
        """The paths of the children, by name."""
        if self._children is None:
            self._children = self._graph.children(self._path)
        return self._children

    def __getattr__(self, name: str) -> NodePath:
        if name.startswith("__") or name in NodePath.__slots__:
            raise AttributeError(name)
        if not name.isidentifier() or name.startswith("_"):
            path = self._below().get(name)
            if path is None:
                raise AttributeError(name)
            return NodePath(self._graph, path)
        try:
            return NodePath(self._graph, self._found(name))
        except PathError as why:
            raise AttributeError(str(why)) from None

    def __getitem__(self, path: str) -> NodePath:
        """The node at a path below this one, such as ``"layers_0.mlp.output|sub_0"``. Raises KeyError."""
        try:
            return NodePath(self._graph, self._found(path))
        except ValueError as why:  # a text that is not a path names nothing
            raise PathError(str(why)) from None

    def _found(self, below: str) -> str:
        """The path of what ``below`` names. Names of local variables are read as aliases where no node has them."""
        try:
            return self._graph.find(self._path, below)
        except PathError as why:
            whole = f"{self._path}.{below}" if self._path else below
            path = meant(self._graph, whole)
            if path is not None:
                return self._graph.find("", path)
            also = [*aliases(self._graph, self._path)]
            if not also:
                raise
            raise PathError(f"{why}; and, by local variables, {', '.join(also)}") from None

    def find(
        self,
        pattern: str | None = None,
        *,
        op: str | Callable[..., Any] | None = None,
        under: str | NodePath | None = None,
        module: str | type[Module] | None = None,
        shape: str | Sequence[Any] | None = None,
    ) -> list[NodePath]:
        """All nodes below this one, and elements of containers, that fit everything that is asked for, in order.

        >>> pg.graph.find(op="softmax", under="encoder.layers_*")
        >>> pg.graph.find("**.output", shape=(1, None, 768))

        Args:
            pattern: A path below this node, with ``*`` (anything within a name), ``**`` (any names), ``?``, ``[0-5]``
                and ``{a,b}``.
            op: An operation: ``"softmax"``, ``"aten::softmax.int"``, or the function ``torch.softmax``.
            under: A path below this node, or a pattern; what is found is below it.
            module: A class, or the name of one: its calls are found.
            shape: Tensors of these sizes: ``"*,768"``, ``"...,64"``, or a tuple with None for any size, ``...`` for
                any number of them, and ranges.

        Raises:
            ValueError: What is no pattern or no shape.
        """
        below = [self._path] if self._path else []
        if under is not None:
            below.append(under._path if isinstance(under, NodePath) else under)
        if isinstance(under, NodePath):
            below = [under._path]
        whole = ".".join([*below, pattern or "**"])
        if callable(op):
            op = op.__name__
        if isinstance(module, type):
            module = f"{module.__module__}.{module.__qualname__}"
        sizes = None if shape is None else _pattern_of_sizes(shape)
        return [NodePath(self._graph, path) for path in self._graph.search(whole, op, module, sizes)]

    def keys(self) -> list[str]:
        """The names of the children."""
        return [*self._below()]

    def values(self) -> list[NodePath]:
        """The children."""
        return [*self]

    def items(self) -> list[tuple[str, NodePath]]:
        """The children with their names."""
        return [(name, NodePath(self._graph, path)) for name, path in self._below().items()]

    def get(self, path: str, default: Any = None) -> Any:
        """The node at a path below this one, or ``default`` where there is none."""
        try:
            return self[path]
        except KeyError:
            return default

    def __contains__(self, path: object) -> bool:
        """Whether there is a node at a path below this one; for a node, whether it is one below."""
        if isinstance(path, NodePath):
            path = path._path if not self._path else path._path[len(self._path) + 1 :]
        return isinstance(path, str) and bool(path) and self.get(path) is not None

    def _dig(self, path: str) -> NodePath:
        """The node at a path below this one; itself for an empty one."""
        return self[path] if path else self

    def _repr_html_(self) -> str:
        lines = repr(self).splitlines()
        return _html.tree_of_lines(lines)

    def _ipython_key_completions_(self) -> list[str]:
        if self._path:
            return [*self.keys(), *aliases(self._graph, self._path)]
        nodes = self.find()
        found = [str(node) for node in nodes]
        for scope in (self, *nodes):
            before = f"{scope}." if scope._path else ""
            found += [before + alias for alias in aliases(self._graph, scope._path)]
        return found

    def to_path(self) -> str:
        """The path as text."""
        return self._path

    def __iter__(self) -> Iterator[NodePath]:
        return (NodePath(self._graph, path) for path in self._below().values())

    def __len__(self) -> int:
        return len(self._below())

    def __bool__(self) -> bool:
        return True

    def __dir__(self) -> list[str]:
        return [*self._below(), "_code", "_shape"]

    # --- what is known ---

    def __str__(self) -> str:
        """The node's path. The root, which has none, gives the tree, so that ``print(pg.graph)`` shows it."""
        return self._path or repr(self)

    def __repr__(self) -> str:
        return self._graph.tree(self._path).rstrip("\n")

    # A node never changes, so a copy is the same object.
    def __copy__(self) -> NodePath:
        return self

    def __deepcopy__(self, memo: Any) -> NodePath:
        return self

    def __reduce__(self) -> NoReturn:
        self._graph.graphs.__reduce__()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NodePath) and self._path == other._path

    def __hash__(self) -> int:
        return hash(self._path)

    @property
    def _code(self) -> Text:
        """A scope as a readable function, with where it was called from; a leaf as the user's line that called it."""
        return Text(self._graph.code(self._path))

    @property
    def _shape(self) -> Shape:
        """A tensor's sizes, as ``torch.Size`` or, where runs differed, with a ``range`` for each size that did. None
        for plain values; for a scope a dict, for a container a tuple, list or dict of its elements' shapes, which are
        attributes, too: ``pg.graph._shape.linear.output``."""
        node = self._graph.node(self._path)
        if node.kind == GP_NODE_KIND_SCOPE or node.value == GP_VALUE_KIND_DICT:
            return DictShape((name, NodePath(self._graph, path)._shape) for name, path in self._below().items())
        if node.value == GP_VALUE_KIND_TENSOR:
            return self._sizes(node)
        if node.value in (GP_VALUE_KIND_TUPLE, GP_VALUE_KIND_LIST):
            shapes = [child._shape for child in self]
            return TupleShape(shapes) if node.value == GP_VALUE_KIND_TUPLE else ListShape(shapes)
        return None

    def _sizes(self, node: gp_node) -> torch.Size | tuple[int | range, ...]:
        seen = self._graph.sizes(self._path, node.rank)
        if all(smallest == largest for smallest, largest in seen):
            return torch.Size([smallest for smallest, _ in seen])
        return tuple(smallest if smallest == largest else range(smallest, largest + 1) for smallest, largest in seen)


def _pattern_of_sizes(shape: str | Sequence[Any]) -> str:
    """The sizes to look for, as the text that the library reads."""
    if isinstance(shape, str):
        return shape
    return f"({','.join(_pattern_of_size(size) for size in shape)})"


def _pattern_of_size(size: Any) -> str:
    if size is None:
        return "*"
    if size is ...:
        return "..."
    if isinstance(size, range):
        return f"{size.start}..{size.stop - 1}"
    return str(int(size))
