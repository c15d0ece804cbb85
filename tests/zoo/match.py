"""Matches scopes of the graph with observed module calls, and nodes with observed operations below autograd."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from case import Case
from nodes import HANDING_ON, Leaf, Node
from observe import Call, Event
from values import at, digest, fields, is_record


def pairs(case: Case) -> tuple[list[tuple[Node, Call]], list[str]]:
    """Pairs of a scope and its module call, and descriptions of scopes and calls without counterpart."""
    found: list[tuple[Node, Call]] = []
    wrong: list[str] = []
    todo = [(case.root, case.call)]
    while todo:
        scope, call = todo.pop()
        found.append((scope, call))
        scopes = [child for child in scope.children if child.kind == "scope"]
        below = list(zip(scopes, call.calls, strict=False))
        if len(scopes) != len(call.calls) or any(child.module_path not in inner.names for child, inner in below):
            names = [child.module_path for child in scopes]
            called = [type(inner.module).__name__ for inner in call.calls]
            wrong.append(f"{scope.path or '<root>'}: module calls {names}, but there were {called}")
        todo += reversed(below)
    return found, wrong


def parameter(case: Case, node: Node) -> Tensor | None:
    """The parameter or buffer that a node stands for."""
    return {
        **dict(case.model.named_parameters(remove_duplicate=False)),
        **dict(case.model.named_buffers(remove_duplicate=False)),
    }.get(node.target)


@dataclass
class Match:
    """A leaf with its expected value."""

    node: Node
    leaf: Leaf
    call: Call
    expected: str
    """As text, or what it had to be."""
    result: tuple[int, int] | None = None
    """Of an operation that gave it this value: its number, and that of its result."""


def matches(case: Case, scope: Node, call: Call, values: dict[str, str]) -> Iterator[Match]:
    """Every leaf of a scope, in order. The value of an operation is searched among the results that came after those of
    the operation before it. An operation that returns its operand has a value that existed before."""
    there = _there_before(case, call)
    place = 0
    for node in scope.children:
        if node.kind == "scope" or node.unwritten:
            continue
        for leaf in node.leaves:
            value = values[leaf.path]
            if node.kind == "input":
                yield Match(node, leaf, call, _picture(call.inputs.get(node.name, "no such argument"), leaf.dig))
            elif node.kind == "output":
                yield Match(node, leaf, call, _picture(call.output, leaf.dig))
            elif node.kind == "parameter":
                tensor = parameter(case, node)
                yield Match(node, leaf, call, "a parameter of the model" if tensor is None else digest(tensor))
            else:
                later = [index for index, event in enumerate(call.events[place:]) if value in event.results]
                if not later:
                    expected = value if value in there else f"a result of an operation, {node.target}"
                    yield Match(node, leaf, call, expected)
                    continue
                # If several operations have that result, prefer one with the name of the node.
                name = node.target.replace("::", ".").partition(".")[2].partition(".")[0]
                named = [index for index in later if call.events[place + index].operator.split(".")[1] == name]
                chosen = (named or later)[0]
                event = call.events[place + chosen]
                result = (event.number, _index(event, leaf, value))
                # The operation may have returned its operand; the equal result found is then another operation's.
                handed_on = node.target.startswith(HANDING_ON) and value in there
                yield Match(node, leaf, call, value, None if handed_on else result)
                if leaf is node.leaves[-1] and not handed_on:
                    place += chosen + 1


def _index(event: Event, leaf: Leaf, value: str) -> int:
    """The index of the result that a leaf stands for. Prefers the leaf's own place, as several results may be equal."""
    place = int(leaf.dig[0].removeprefix("sub_")) if leaf.dig else 0
    return place if event.results[place : place + 1] == [value] else event.results.index(value)


def _there_before(case: Case, call: Call) -> set[str]:
    """Values that an operation may return unchanged: parameters, buffers, and all values in the calls around it."""
    found = {digest(tensor) for tensor in (*case.model.parameters(), *case.model.buffers())}
    around: Call | None = call
    while around is not None:
        found |= {text for event in around.events for text in event.results}
        for picture in (*around.inputs.values(), *(below.output for below in around.calls)):
            found |= set(_texts(picture))
        around = around.above
    return found


def _picture(value: object, dig: list[str]) -> str:
    found = at(value, dig)
    return found if isinstance(found, str) and "#" in found else repr(found)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (tuple, list)):
        for element in value:
            yield from _texts(element)
    elif isinstance(value, dict) or is_record(value):
        for element in fields(value).values():
            yield from _texts(element)
