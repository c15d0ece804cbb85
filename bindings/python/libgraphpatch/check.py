"""Checks whether a recorded run is what happened, by computing every operation again from its recorded operands."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from . import _trees
from ._graphs import nodes_below

# Operations whose results are uninitialised memory.
_UNDEFINED = ("aten::empty", "aten::new_empty", "aten::empty_like", "aten::empty_strided", "aten::resize")


@dataclass(repr=False)
class Checked:
    """What :meth:`PatchableGraph.check` found. True if no operation gives another value.

    Attributes:
        compared: The operations that give the recorded value again.
        wrong: The operations that do not, with the largest difference or the reason why the values cannot be compared.
        skipped: The operations that cannot be repeated, each with the reason.
    """

    compared: list[str] = field(default_factory=list)
    wrong: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return not self.wrong

    def __repr__(self) -> str:
        lines = [f"{len(self.compared)} operations again, {len(self.wrong)} wrong, {len(self.skipped)} not repeated"]
        lines += [f"wrong: {path}: {why}" for path, why in self.wrong.items()]
        lines += [f"not repeated: {path}: {why}" for path, why in self.skipped.items()]
        return "\n".join(lines)


class _Unknown(Exception):
    """An operation cannot be repeated."""


def check(whole: dict[str, Any], values: Mapping[str, Tensor], rtol: float, atol: float) -> Checked:
    """Repeats the operations of a graph.

    Args:
        whole: The graph, as a file has it.
        values: The values of its nodes, in the run that was recorded.
    """
    checked = Checked()
    operations = [found for found in nodes_below(whole) if found[1]["kind"] == "op"]
    undefined = {path for path, node, _ in operations if node["target"].startswith(_UNDEFINED)}
    for path, node, scope in operations:
        recorded = _recorded(path, values)
        try:
            if path in undefined or any(scope + name in undefined for name in _nodes(node.get("args") or [])):
                raise _Unknown("it, or an operand, is memory that nobody has written")
            if not recorded:
                raise _Unknown("its value is no tensor, or was not seen")
            difference = _difference(_again(node, scope, whole, values), recorded, rtol, atol)
        except _Unknown as why:
            checked.skipped[path] = str(why)
            continue
        if difference:
            checked.wrong[path] = difference
        else:
            checked.compared.append(path)
    return checked


def _recorded(path: str, values: Mapping[str, Tensor]) -> list[Tensor]:
    if path in values:
        return [values[path]]
    return [value for known, value in values.items() if known.startswith(f"{path}|")]


def _again(node: dict[str, Any], scope: str, whole: dict[str, Any], values: Mapping[str, Tensor]) -> list[Tensor]:
    target: str = node["target"]
    namespace, _, name = target.partition("::")
    packet, _, overload = name.partition(".")
    function: Any = getattr(getattr(torch.ops, namespace), packet, None)
    function = getattr(function, overload or "default", None)
    if function is None:
        raise _Unknown(f"there is no operator {target}")

    def value(argument: dict[str, Any]) -> Any:
        return _argument(argument, scope, whole, values)

    args = [value(argument) for argument in node.get("args") or []]
    kwargs = {name: value(argument) for name, argument in node.get("kwargs") or []}
    if torch.Tag.nondeterministic_seeded in function.tags and not _is_off(function, args, kwargs):
        raise _Unknown("its result is random")
    # The operation may write into its operands.
    args, kwargs = _trees.mapped((args, kwargs), Tensor.clone)
    try:
        with torch.no_grad():
            return [*_trees.tensors(function(*args, **kwargs))]
    except Exception as why:
        raise _Unknown(f"repeating it fails: {why}") from why


def _is_off(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether the function is or contains a dropout that drops nothing in this call."""
    schema = function._schema.arguments
    given = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
    given |= dict(zip((argument.name for argument in schema), args, strict=False))
    given |= kwargs
    return given.get("train") is False or 0 in (given.get("p", 1), given.get("dropout_p", 1))


def _nodes(arguments: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The names of the nodes of the same scope that the arguments refer to."""
    for argument in arguments:
        (kind, given), *_ = argument.items()
        if kind == "node":
            yield given
        elif kind in ("list", "tuple"):
            yield from _nodes(given)


def _argument(argument: dict[str, Any], scope: str, whole: dict[str, Any], values: Mapping[str, Tensor]) -> Any:
    (kind, given), *_ = argument.items()
    if kind == "const":
        return _constant(given)
    if kind in ("list", "tuple"):
        return [_argument(each, scope, whole, values) for each in given]
    if kind == "dict":
        return {name: _argument(each, scope, whole, values) for name, each in given}
    path = given if kind == "outer" else scope + given
    name, bar, dig = path.partition("|")
    if _kind_at(whole, name) == "scope":
        path = f"{name}.output{bar}{dig}"
    if path in values:
        return values[path]
    parts = _recorded(path, values)
    if parts:
        return parts
    raise _Unknown(f"its operand {path} is no tensor, or was not seen")


def _kind_at(whole: dict[str, Any], path: str) -> str:
    node: dict[str, Any] | None = whole
    for name in path.split("."):
        node = next((child for child in (node or {}).get("children", []) if child["name"] == name), None)
    return "" if node is None else str(node["kind"])


_NAMED = {"inf": torch.inf, "-inf": -torch.inf, "nan": torch.nan, "sys.maxsize": sys.maxsize}


def _constant(text: str) -> Any:
    if text in _NAMED:
        return _NAMED[text]
    if text.startswith("torch.device("):
        return torch.device(ast.literal_eval(text[len("torch.device(") : -1]))
    if text.startswith("torch."):
        return getattr(torch, text.removeprefix("torch."))
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise _Unknown(f"its operand {text} is no node") from None


def _difference(again: Sequence[Tensor], recorded: Sequence[Tensor], rtol: float, atol: float) -> str:
    if [value.shape for value in again] != [value.shape for value in recorded]:
        shapes = [[tuple(value.shape) for value in values] for values in (again, recorded)]
        return f"sizes {shapes[0]} in the place of {shapes[1]}"
    for one, other in zip(again, recorded, strict=True):
        try:
            if not torch.allclose(one, other, rtol=rtol, atol=atol, equal_nan=True):
                return f"differs by up to {(one.double() - other.double()).abs().max().item():.3g}"
        except (RuntimeError, NotImplementedError) as why:
            raise _Unknown(f"its values cannot be compared: {why}") from why
    return ""
