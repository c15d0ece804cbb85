"""Second names of operations' results: those of the local variables that the model's code assigns them to, as the
package graphpatch names them. Of ``hidden = self.act(x) + y`` the result is ``add``, and by its alias ``hidden``.

A name that a node has is never an alias: ``x = x + 1`` gives ``x_1`` where ``x`` is the input.
"""

from __future__ import annotations

import ast
import functools
import linecache
from collections.abc import Iterator
from typing import Any, NamedTuple

from ._graphs import Graph

# A file, and the number of one of its lines.
Line = tuple[str, int]


def aliases(graph: Graph, scope: str) -> dict[str, str]:
    """The aliases in a scope, each with the name of its node, in the order in which the nodes were computed."""
    around = _scope(graph.whole(), scope)
    if around is None:
        return {}
    children = around.get("children", [])
    used = {child["name"] for child in children}
    found: dict[str, str] = {}
    known: dict[tuple[str, int, str], set[int]] = {}  # the lines that assigned the variable of a function so far
    for child, made in _assigned(children, len(_frames(around))):
        lines = known.setdefault((made.file, made.function, made.variable), set())
        certain = all(line in lines for line in made.lines if line < made.line)
        lines.add(made.line)
        # Where an earlier assignment is none of an operation's result, it cannot be said which number this one has.
        if child in (None, made.variable) or not certain:
            continue
        name, number = made.variable, 0
        while name in used:
            number += 1
            name = f"{made.variable}_{number}"
        used.add(name)
        found[name] = str(child)
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


class Made(NamedTuple):
    """An assignment of a value to a variable, as it is."""

    file: str
    function: int  # the line at which the function begins
    variable: str
    line: int
    lines: list[int]  # the lines of the function that assign the variable in whatever way


def _assigned(children: list[dict[str, Any]], outer: int) -> Iterator[tuple[str | None, Made]]:
    """The results that are assigned to a variable as they are: with the operation's name, or None for what a module
    returns. The first ``outer`` of their frames are those of the scope's caller."""
    computed = [child for child in children if child["kind"] in ("op", "scope")]
    for number, child in enumerate(computed):
        later = computed[number + 1] if number + 1 < len(computed) else None
        made = _made(child, later, outer)
        if made is not None:
            yield child["name"] if child["kind"] == "op" else None, made


def _made(child: dict[str, Any], later: dict[str, Any] | None, outer: int) -> Made | None:
    """The statement that assigns what it computes last."""
    frames, others = _frames(child), [] if later is None else _frames(later)
    for depth in reversed(range(outer, len(frames))):
        file, line = frames[depth]
        source = _source(file, len(linecache.getlines(file)))
        statement = source.statements.get(line)
        if statement is None:
            return None
        # What comes next is computed by the same statement, so that this is not the statement's result.
        goes_on = len(others) > depth and others[:depth] == frames[:depth] and others[depth][0] == file
        if goes_on and statement.lineno <= others[depth][1] <= (statement.end_lineno or line):
            return None
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
            if not isinstance(target, ast.Name):
                return None
            function = source.functions.get(statement.lineno, 0)
            lines = source.bound.get((function, target.id), [])
            return Made(file, function, target.id, statement.lineno, lines)
        if not isinstance(statement, ast.Return):  # what a function returns is assigned where it was called
            return None
    return None


def _frames(node: dict[str, Any]) -> list[Line]:
    return [(frame.get("file", ""), frame.get("line", 0)) for frame in node.get("frames", ())]


class Source(NamedTuple):
    """What is known of a file."""

    statements: dict[int, ast.stmt]  # the innermost statement of each line
    functions: dict[int, int]  # for each line, where its innermost function begins
    bound: dict[tuple[int, str], list[int]]  # by function and variable, the lines of statements that assign it


@functools.lru_cache(maxsize=64)
def _source(file: str, count: int) -> Source:
    """Of the first ``count`` lines of a file, which are all that it has."""
    found = Source({}, {}, {})
    try:
        tree = ast.parse("".join(linecache.getlines(file)[:count]))
    except SyntaxError:
        return found
    for node in ast.walk(tree):  # an inner statement comes after the one that it is in
        if isinstance(node, ast.stmt):
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                found.statements[line] = node
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    found.functions[line] = node.lineno
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            function, statement = found.functions.get(node.lineno, 0), found.statements[node.lineno]
            found.bound.setdefault((function, node.id), []).append(statement.lineno)
    return found
