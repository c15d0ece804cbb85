"""What a request asks for, checked against the model's graph before the request reaches the engine."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import load_graph
from .._graphs import Graph
from .._header import GP_NODE_KIND_PARAMETER, GP_VALUE_KIND_TENSOR
from .._library import lib, message
from .._place import leaves
from ..errors import PathError
from .asked import KEY, Asked
from .folder import Folder
from .wire import Number, Place

# The argument of every model of vLLM's that has one element for each token of the batch, in its last dimension.
_TOKENS = "positions"


def places(asked: list[Asked], folder: Folder, instance: str, prompt: int, most: int) -> list[Place]:
    """What is done, node by node. Raises ValueError for what cannot be done.

    Args:
        instance: The server's start, which names its graph.
        prompt: The length of the request's prompt.
        most: The largest number of tokens that the server takes of a request.
    """
    graph = _graph(folder.graph(instance))
    found: list[Place] = []
    for number, one in enumerate(asked):
        try:
            found += _placed(one, graph, folder, prompt, most)
        except (PathError, ValueError) as why:
            raise ValueError(f"{KEY}[{number}]: {why}") from None
    return found


def _graph(file: Path) -> Graph:
    try:
        return _loaded(str(file), file.stat().st_mtime_ns)
    except OSError:
        raise ValueError(
            f"{KEY}: the model's graph is not recorded yet: the first request without patches has it recorded"
        ) from None


@functools.lru_cache(maxsize=8)
def _loaded(file: str, _changed: int) -> Graph:
    return load_graph(file)._graph


def _placed(one: Asked, graph: Graph, folder: Folder, prompt: int, most: int) -> Iterator[Place]:
    value = _value(one, folder)
    spans = one.spans(prompt, most)
    paths = leaves(graph, one.path)
    if graph.graphs.check(paths):
        raise ValueError(message())
    for path in paths:
        sizes = _token(graph, path)
        _check_slice(path, one, sizes, value)
        yield Place(path, one.kind, one.slice, value, spans)


def _value(one: Asked, folder: Folder) -> Tensor | Number | None:
    given: Any = one.value
    if given is None:
        return None
    if isinstance(given, str):
        if not given.startswith("@"):
            raise ValueError(f"value is a number, a list of numbers, or @FILE#KEY, not {given!r}")
        given = folder.tensor(given)
    elif isinstance(given, list):
        try:
            given = torch.tensor(given, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError) as why:
            raise ValueError(f"value is no list of numbers: {why}") from None
    elif isinstance(given, bool) or not isinstance(given, (int, float)):
        raise ValueError(f"value is a number, a list of numbers, or @FILE#KEY, not {given!r}")
    if _is_empty(given):
        raise ValueError("the value has no elements")
    return given if one.scale == 1 else given * one.scale


def _is_empty(value: Any) -> bool:
    return isinstance(value, Tensor) and not value.numel()


def _token(graph: Graph, path: str) -> list[int]:
    """The sizes of one token's part of the value. Raises ValueError for a value that is not made of tokens: no part
    of such a value belongs to one request."""
    node = graph.node(path)
    if node.kind == GP_NODE_KIND_PARAMETER:
        raise ValueError(f"{path}: is a parameter, which all requests share")
    if node.value != GP_VALUE_KIND_TENSOR or not node.rank:
        raise ValueError(f"{path}: is no tensor with one row for each token")
    tokens = graph.node(_TOKENS)
    wanted, sizes = graph.sizes(_TOKENS, tokens.rank)[-1], graph.sizes(path, node.rank)
    if sizes[0] != wanted:
        raise ValueError(
            f"{path}: its first size is {_range(sizes[0])}, where the batch had {_range(wanted)} tokens: its rows are"
            " not those of single requests"
        )
    return [largest for _, largest in sizes[1:]]


def _range(seen: tuple[int, int]) -> str:
    return str(seen[0]) if seen[0] == seen[1] else f"{seen[0]} to {seen[1]}"


def _check_slice(path: str, one: Asked, sizes: list[int], value: Any) -> None:
    part = torch.empty(sizes, device="meta")
    if one.slice:
        array = (ctypes.c_int64 * len(sizes))(*sizes)
        if lib.gp_slice_check(f"[{one.slice}]".encode(), array, len(sizes), None):
            raise ValueError(f"{path}: {message()}")
        part = part[_key(one.slice)]
    if isinstance(value, Tensor) and not _broadcasts([*value.shape], [1, *part.shape]):
        raise ValueError(
            f"{path}: the value's shape {tuple(value.shape)} does not broadcast to one token's, {tuple(part.shape)}"
        )


def _broadcasts(shape: list[int], to: list[int]) -> bool:
    try:
        return [*torch.broadcast_shapes(shape, to)] == to
    except RuntimeError:
        return False


def _key(items: str) -> Any:
    """The items of a slice's text, which the library has parsed, as ``tensor[...]`` takes them."""
    return tuple(map(_item, items.split(", ")))


def _item(text: str) -> Any:
    if text == "...":
        return ...
    if text == "None":
        return None
    if ":" not in text:
        return int(text)
    return slice(*(int(bound) if bound else None for bound in text.split(":")))
