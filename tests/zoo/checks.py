"""What holds for every model of the zoo. Each check gives the failures that it found, one text each, which begins with
the path of the node."""

from __future__ import annotations

from collections.abc import Iterator

from case import Case
from libgraphpatch import AddPatch, Patch, ProbePatch, ZeroPatch
from nodes import Node
from observe import Call, zeroed
from values import at, digest, digests, fields, is_record


def difference(found: list[str], expected: list[str]) -> str:
    """What differs; empty if nothing does."""
    if found == expected:
        return ""
    pairs = [f"{a} instead of {b}" for a, b in zip(found, expected, strict=False) if a != b]
    return pairs[0] if pairs else f"{len(found)} tensors instead of {len(expected)}"


def outputs(case: Case) -> Iterator[str]:
    """Bare output, recorded output and the output afterwards are the same, and so is the model."""
    if case.bare != case.bare_again:
        yield f"<root>: the bare model differs from itself: {difference(case.bare_again, case.bare)}"
    if wrong := difference(case.recorded, case.bare):
        yield f"<root>: recorded: {wrong}"
    for what, model in (("the PatchableGraph", case.pg), ("the module", case.model)):
        if wrong := difference(case.run(model), case.bare):
            yield f"<root>: {what} after recording: {wrong}"
    if wrong := difference(digests(case.model.state_dict()), case.state):
        yield f"<root>: parameters and buffers: {wrong}"


# --- module calls -----------------------------------------------------------------------------------------------------


def pairs(case: Case) -> tuple[list[tuple[Node, Call]], list[str]]:
    """Each scope of the graph with the call that it is, and what has no counterpart."""
    found: list[tuple[Node, Call]] = []
    wrong: list[str] = []
    todo = [(case.root, case.call)]
    while todo:
        scope, call = todo.pop()
        found.append((scope, call))
        scopes = [child for child in scope.children if child.kind == "scope"]
        below = list(zip(scopes, call.calls, strict=False))
        if len(scopes) != len(call.calls) or any(child.module_path not in inner.names for child, inner in below):
            names, called = (
                [child.module_path for child in scopes],
                [type(inner.module).__name__ for inner in call.calls],
            )
            wrong.append(f"{scope.path or '<root>'}: module calls {names}, but there were {called}")
        todo += reversed(below)
    return found, wrong


def scopes(case: Case) -> Iterator[str]:
    """The graph has the calls of modules that there were, in their order."""
    yield from pairs(case)[1]


def zero_outputs(case: Case) -> Iterator[str]:
    """Zero at all tensors that a module returns is what a forward hook that zeroes them does."""
    for scope, call in pairs(case)[0]:
        output = scope.children[-1]
        patches: dict[str, Patch[object]] = {leaf.path: ZeroPatch() for leaf in output.leaves if leaf.is_tensor}
        if not patches:
            continue
        found: list[str] | Exception
        expected: list[str] | Exception
        try:
            expected = zeroed(call.number, lambda: case.run(case.model))
        except Exception as error:
            expected = error
        try:
            found = case.patched(patches)
        except Exception as error:
            found = error
        if isinstance(found, Exception) or isinstance(expected, Exception):
            if type(found) is not type(expected):
                yield f"{output.path}: {found!r} instead of {expected!r}"
        elif wrong := difference(found, expected):
            yield f"{output.path}: zero: {wrong}"


# --- values -----------------------------------------------------------------------------------------------------------


def probes(case: Case) -> Iterator[str]:
    """All values are probed in one run, which changes nothing; each value is the one that hooks and modes see."""
    all_probes = {leaf.path: ProbePatch() for leaf in case.leaves}
    if wrong := difference(case.patched(dict(all_probes)), case.bare):
        yield f"<root>: all probed: {wrong}"
    values = {path: digest(probe.activation) for path, probe in all_probes.items()}
    for scope, call in pairs(case)[0]:
        yield from _of_scope(scope, call, values)


def _uninitialized(node: Node) -> bool:
    return node.target.startswith(("aten::empty", "aten::new_empty"))


def _of_scope(scope: Node, call: Call, values: dict[str, str]) -> Iterator[str]:
    held = {**dict(call.module.named_parameters()), **dict(call.module.named_buffers())}
    known = {digest(tensor) for tensor in held.values()} | _all_digests(call)
    place = 0
    for node in scope.children:
        if node.kind == "scope" or _uninitialized(node):
            continue
        for leaf in node.leaves:
            value = values[leaf.path]
            if node.kind == "input":
                expected = _picture(call.inputs.get(node.name, "no such argument"), leaf.dig)
            elif node.kind == "output":
                expected = _picture(call.output, leaf.dig)
            elif node.kind == "parameter":
                expected = value if value in known else "one that the module holds"
            else:
                later = [index for index, event in enumerate(call.events[place:]) if value in event.results]
                if later and leaf is node.leaves[0]:
                    place += later[0]
                expected = value if later or value in known else f"a result of an operation, {node.target}"
            if value != expected:
                yield f"{leaf.path}: the probe kept {value}, not {expected}"


def _picture(value: object, dig: list[str]) -> str:
    found = at(value, dig)
    return found if isinstance(found, str) and "#" in found else repr(found)


def _all_digests(call: Call) -> set[str]:
    found = {digest for event in call.events for digest in event.results}
    for picture in (*call.inputs.values(), *(below.output for below in call.calls)):
        found |= set(_texts(picture))
    return found


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (tuple, list)):
        for element in value:
            yield from _texts(element)
    elif isinstance(value, dict) or is_record(value):
        for element in fields(value).values():
            yield from _texts(element)


# --- patches that change nothing --------------------------------------------------------------------------------------


def minus_zero_everywhere(case: Case) -> Iterator[str]:
    """Adding -0.0 at all float values at once changes no bit."""
    found = case.patched({leaf.path: AddPatch(value=-0.0) for leaf in case.leaves if leaf.is_float})
    if wrong := difference(found, case.bare):
        yield f"<root>: -0.0 everywhere: {wrong}"


def one_by_one(case: Case) -> Iterator[str]:
    """Each value alone: adding -0.0 to a float one, and probing any other, changes no bit, and the patch is met."""
    for leaf in case.leaves:
        patch: Patch[object] = AddPatch(value=-0.0) if leaf.is_float else ProbePatch()
        what = "-0.0" if leaf.is_float else "probe"
        try:
            found = case.patched({leaf.path: patch})
        except Exception as error:
            yield f"{leaf.path}: {what}: {error!r}"
            continue
        if wrong := difference(found, case.bare):
            yield f"{leaf.path}: {what}: {wrong}"
