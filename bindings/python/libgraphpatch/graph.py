"""The recorded graph for looking around: nodes as attributes, with tab completion."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, List, Optional, Tuple, Union

import torch

from ._abi import check, lib, text

# What `_shape` answers: sizes of a tensor, with a range for each that differed between runs; containers hold their
# elements'.
Shape = Union[torch.Size, Tuple[Union[int, range], ...], Tuple[Any, ...], List[Any], Dict[str, Any], None]


# Between the names of a path, where no backslash makes it a part of one.
_SEPARATOR = re.compile(r"(?<!\\)[.|]")
_ESCAPED = re.compile(r"\\(.)")


class Text(str):
    """Text that shows itself as it is at a prompt."""

    def __repr__(self) -> str:
        return str(self)


class Graphs:
    """The library's graphs at one moment."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __del__(self) -> None:
        lib.gp_graphs_free(self.handle)

    def __reduce__(self) -> Any:
        raise TypeError("a recorded graph cannot be pickled: save it with `pg.save_graph(file)`")

    def __len__(self) -> int:
        return lib.gp_graphs_count(self.handle)

    def name(self, index: int) -> str:
        return lib.gp_graphs_name(self.handle, index).decode()

    def save(self, file: Any) -> None:
        """Writes all of them as JSON."""
        check(lib.gp_graphs_save(self.handle, str(file).encode()))

    def root(self, index: int = 0) -> "NodePath":
        """The root of graph number ``index``."""
        data = json.loads(text(lib.gp_graphs_json, self.handle, index))
        return NodePath(self, index, (), (), data["root"])


class NodePath:
    """A node of the graph, or an element of a container that a node is. Its children are its attributes; ``str`` gives
    its path, ``repr`` the tree below it. It may stand for its path in :meth:`PatchableGraph.patch`.

    >>> pg.graph.linear
    linear: Graph(5)
    ├─input: Tensor(3, 2)
    ...
    >>> str(pg.graph.output.sub_0)
    'output|sub_0'
    """

    __slots__ = ("_graphs", "_index", "_names", "_dig", "_data", "_children")

    def __init__(self, graphs: Graphs, index: int, names: Tuple[str, ...], dig: Tuple[str, ...], data: Any) -> None:
        self._graphs, self._index, self._names, self._dig, self._data = graphs, index, names, dig, data
        self._children: Optional[Dict[str, Any]] = None

    # --- children ---

    def _below(self) -> Dict[str, Any]:
        """What is below: nodes of a scope, elements of a container, by name."""
        if self._children is None:
            if not self._dig and self._data.get("kind") == "scope":
                self._children = {child["name"]: child for child in self._data.get("children", [])}
            else:
                self._children = _elements(self._value())
        return self._children

    def _value(self) -> Any:
        return self._data if self._dig else self._data.get("value", "none")

    def _child(self, name: str) -> "NodePath":
        below = self._below()
        found = name if name in below else name[:-2] if name.endswith("_0") and name[:-2] in below else None
        if found is None:
            where = str(self) or "<root>"
            raise AttributeError(f"{where} has no node {name!r}; it has {', '.join(below) or 'none'}")
        scope = not self._dig and self._data.get("kind") == "scope"
        names = (*self._names, found) if scope else self._names
        dig = self._dig if scope else (*self._dig, found)
        return NodePath(self._graphs, self._index, names, dig, below[found])

    def __getattr__(self, name: str) -> "NodePath":
        if name.startswith("__") or (name.startswith("_") and name not in self._below()):
            raise AttributeError(name)
        return self._child(name)

    def __getitem__(self, path: str) -> "NodePath":
        """The node at a path below this one, such as ``"layers_0.mlp.output|sub_0"``."""
        node = self
        for name in _SEPARATOR.split(path):
            try:
                node = node._child(_ESCAPED.sub(r"\1", name))
            except AttributeError as why:
                raise KeyError(str(why)) from None
        return node

    def __iter__(self) -> Any:
        return (self._child(name) for name in self._below())

    def __len__(self) -> int:
        return len(self._below())

    def __bool__(self) -> bool:
        return True

    def __dir__(self) -> List[str]:
        return [*self._below(), "_code", "_shape"]

    # --- what is known ---

    def __str__(self) -> str:
        escape = {ord(c): f"\\{c}" for c in ".|[]=\\"}
        path = ".".join(name.translate(escape) for name in self._names)
        return path + ("|" + ".".join(key.translate(escape) for key in self._dig) if self._dig else "")

    def __repr__(self) -> str:
        return text(lib.gp_graphs_tree, self._graphs.handle, self._index, str(self).encode()).rstrip("\n")

    # It never changes.
    def __copy__(self) -> "NodePath":
        return self

    def __deepcopy__(self, memo: Any) -> "NodePath":
        return self

    def __reduce__(self) -> Any:
        return self._graphs.__reduce__()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NodePath) and (self._names, self._dig) == (other._names, other._dig)

    def __hash__(self) -> int:
        return hash((self._names, self._dig))

    @property
    def _code(self) -> Text:
        """A scope as a readable function, with where it was called from; a leaf as the user's line that called it."""
        path = ".".join(self._names).encode()
        return Text(text(lib.gp_graphs_code, self._graphs.handle, self._index, path))

    @property
    def _shape(self) -> Shape:
        """A tensor's sizes, as ``torch.Size`` or, where runs differed, with a ``range`` for each size that did. None
        for plain values; for a scope a dict, for a container a tuple, list or dict of its elements' shapes."""
        if not self._dig and self._data.get("kind") == "scope":
            return {child: self._child(child)._shape for child in self._below()}
        return _shape(self._value())


def _elements(value: Any) -> Dict[str, Any]:
    """A container's elements by name; of several kinds that were seen, the first container's."""
    if not isinstance(value, dict):
        return {}
    ((kind, content),) = value.items()
    if kind in ("tuple", "list"):
        return {f"sub_{index}": element for index, element in enumerate(content)}
    if kind == "dict":
        return {key: element for key, element in content}
    if kind == "mixed":
        return next((elements for elements in map(_elements, content) if elements), {})
    return {}


def _shape(value: Any) -> Shape:
    if not isinstance(value, dict):
        return None
    ((kind, content),) = value.items()
    if kind == "tensor":
        sizes = tuple(size if isinstance(size, int) else range(size[0], size[1] + 1) for size in content["shape"])
        return torch.Size(sizes) if all(isinstance(size, int) for size in sizes) else sizes  # type: ignore[arg-type]
    if kind in ("tuple", "list"):
        return (tuple if kind == "tuple" else list)(_shape(element) for element in content)
    if kind == "dict":
        return {key: _shape(element) for key, element in content}
    if kind == "mixed":
        return next((shape for shape in map(_shape, content) if shape is not None), None)
    return None


def is_number(value: Any) -> bool:
    """Whether a leaf was a plain number whenever it was seen, or None."""
    kinds = value["mixed"] if isinstance(value, dict) and "mixed" in value else [value]
    numbers = [kind for kind in kinds if kind != "none"]
    return bool(numbers) and all(kind in ("int", "float", "bool") for kind in numbers)
