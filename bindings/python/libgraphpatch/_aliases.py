"""Second names of operations' results: those of the local variables that the model's code assigns them to, as the
package graphpatch names them. Of ``hidden = self.act(x) + y`` the result is ``add``, and by its alias ``hidden``.

A name that a node has is never an alias: ``x = x + 1`` gives ``x_1`` where ``x`` is the input.
"""

from __future__ import annotations

import ast
import functools
import linecache
from collections.abc import Iterator
from typing import Any

from ._graphs import Graph

Frame = tuple[str, int]


def aliases(graph: Graph, scope: str) -> dict[str, str]:
    """The aliases in a scope, each with the name of its node, in the order in which the nodes were computed."""
    around = _scope(graph.whole(), scope)
    if around is None:
        return {}
    children = around.get("children", [])
    used = {child["name"] for child in children}
    found: dict[str, str] = {}
    for child, variable in _assigned(children, len(_frames(around))):
        name, number = variable, 0
        while name in used:
            number += 1
            name = f"{variable}_{number}"
        used.add(name)
        found[name] = child
    return found


def meant(graph: Graph, path: str) -> str | None:
    """The path with its aliases replaced by the nodes' names; None if it has no aliases."""
    base, bar, dig = path.partition("|")
    names = base.split(".")
    for number, name in enumerate(names):
        known = aliases(graph, ".".join(names[:number])).get(name)
        if known is not None:
            names[number] = known
            return ".".join(names) + bar + dig
    return None


def _scope(node: dict[str, Any], path: str) -> dict[str, Any] | None:
    """The scope at this path; None where there is none."""
    for name in path.split(".") if path else []:
        inner = next((child for child in node.get("children", ()) if child["name"] == name), None)
        if inner is None:
            return None
        node = inner
    return node


def _assigned(children: list[dict[str, Any]], outer: int) -> Iterator[tuple[str, str]]:
    """The operations whose result is assigned to a variable as it is, with the variable's name. The first ``outer`` of
    their frames are those of the scope's caller."""
    computed = [child for child in children if child["kind"] in ("op", "scope")]
    for number, child in enumerate(computed):
        later = computed[number + 1] if number + 1 < len(computed) else None
        variable = _variable(child, later, outer) if child["kind"] == "op" else None
        if variable is not None:
            yield child["name"], variable


def _variable(child: dict[str, Any], later: dict[str, Any] | None, outer: int) -> str | None:
    """The variable to which a statement assigns what it computes last."""
    frames, others = _frames(child), [] if later is None else _frames(later)
    for depth in reversed(range(outer, len(frames))):
        file, line = frames[depth]
        statement = _statement(file, line)
        if statement is None:
            return None
        # What comes next is computed by the same statement, so that this is not the statement's result.
        goes_on = len(others) > depth and others[:depth] == frames[:depth] and others[depth][0] == file
        if goes_on and statement.lineno <= others[depth][1] <= (statement.end_lineno or line):
            return None
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
            return target.id if isinstance(target, ast.Name) else None
        if not isinstance(statement, ast.Return):  # what a function returns is assigned where it was called
            return None
    return None


def _frames(node: dict[str, Any]) -> list[Frame]:
    return [(frame.get("file", ""), frame.get("line", 0)) for frame in node.get("frames", ())]


def _statement(file: str, line: int) -> ast.stmt | None:
    """The innermost statement on this line."""
    return _statements(file, len(linecache.getlines(file))).get(line)


@functools.lru_cache(maxsize=64)
def _statements(file: str, count: int) -> dict[int, ast.stmt]:
    """The innermost statement of each of the ``count`` lines. An inner one comes after the one that it is in."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)[:count]))
    except SyntaxError:
        return {}
    found: dict[int, ast.stmt] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                found[line] = node
    return found
