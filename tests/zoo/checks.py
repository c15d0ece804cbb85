"""Checks that every model of the zoo must pass. Each check yields its failures as texts that begin with the path of the
node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from case import Case, difference
from libgraphpatch import AddPatch, Patch, ProbePatch
from match import matches, pairs
from values import digest, digests


def outputs(case: Case) -> Iterator[str]:
    """Bare output, recorded output and the output afterwards are the same, and so is the model."""
    if wrong := difference(case.bare_again, case.bare):
        yield f"<root>: the bare model differs from itself: {wrong}"
    if wrong := difference(case.recorded, case.bare):
        yield f"<root>: recorded: {wrong}"
    for what, model in (("the PatchableGraph", case.pg), ("the module", case.model)):
        if wrong := difference(case.run(model), case.bare):
            yield f"<root>: {what} after recording: {wrong}"
    if wrong := difference(digests(case.model.state_dict()), case.state):
        yield f"<root>: parameters and buffers: {wrong}"


def scopes(case: Case) -> Iterator[str]:
    """The scopes of the graph are the calls of modules that PyTorch's own means observed, in the same order."""
    yield from pairs(case)[1]


def probes(case: Case) -> Iterator[str]:
    """Probing all values in one run changes nothing, and each value is the one that PyTorch's own means observed."""
    values, output = case.probed()
    if wrong := difference(output, case.bare):
        yield f"<root>: all probed: {wrong}"
    for scope, call in pairs(case)[0]:
        for match in matches(case, scope, call, values):
            if values[match.leaf.path] != match.expected:
                yield f"{match.leaf.path}: the probe kept {values[match.leaf.path]}, not {match.expected}"


def minus_zero_everywhere(case: Case) -> Iterator[str]:
    """Adding -0.0 at all float values at once changes no bit."""
    try:
        found = case.patched({leaf.path: AddPatch(value=-0.0) for leaf in case.leaves if leaf.is_float})
    except Exception as error:
        yield f"<root>: -0.0 everywhere: {error!r}"
        return
    if wrong := difference(found, case.bare):
        yield f"<root>: -0.0 everywhere: {wrong}"


def one_by_one(case: Case) -> Iterator[str]:
    """Patches each value alone, so that only its own scope is observed: the probe keeps the same value as in the run
    with all probes, and neither the probe nor adding -0.0 to a float changes a bit of the result."""
    values, _ = case.probed()
    for node in case.nodes:
        for leaf in node.leaves:
            probe = ProbePatch()
            patches: list[Patch[Any]] = [probe, AddPatch(value=-0.0)] if leaf.is_float else [probe]
            try:
                found = case.patched({leaf.path: patches})
            except Exception as error:
                yield f"{leaf.path}: {error!r}"
                continue
            if wrong := difference(found, case.bare):
                yield f"{leaf.path}: {wrong}"
            if not node.unwritten and digest(probe.activation) != values[leaf.path]:
                yield f"{leaf.path}: alone, the probe kept {digest(probe.activation)}, not {values[leaf.path]}"
