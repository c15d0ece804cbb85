"""Zeroing a node by a patch has the same effect as zero there by PyTorch's own means: hooks, modes, new parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

from case import Case, difference
from libgraphpatch import Patch, ZeroPatch
from match import Match, matches, pairs, parameter
from observe import zeroed_input, zeroed_output, zeroed_parameter, zeroed_result


def _compared(case: Case, paths: list[str], expected: Callable[[], list[str]]) -> str:
    """Describes how zero at the paths differs from the expected result; empty if it does not. If one of them raises an
    error, the other must raise one of the same type."""
    patches: dict[str, Patch[object]] = {path: ZeroPatch() for path in paths}
    wrong = _unlike(lambda: case.patched(patches), expected)
    if wrong:
        # With zeros, some models read memory that nothing was written to (a grouped product without rows does).
        with _filled_memory():
            wrong = _unlike(lambda: case.patched(patches), expected)
    return wrong


def _unlike(run: Callable[[], list[str]], expected: Callable[[], list[str]]) -> str:
    results: list[list[str] | Exception] = []
    for compute in (run, expected):
        try:
            results.append(compute())
        except Exception as error:
            results.append(error)
    found, wanted = results
    if isinstance(found, Exception) or isinstance(wanted, Exception):
        return "" if type(found) is type(wanted) else f"{found!r} instead of {wanted!r}"
    return difference(found, wanted)


@contextlib.contextmanager
def _filled_memory() -> Iterator[None]:
    """Has libtorch fill new memory with a fixed value, so that what is read before it is written is always the same."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def zero_outputs(case: Case) -> Iterator[str]:
    """At all tensors that a module returns: a forward hook."""
    for scope, call in pairs(case)[0]:
        output = scope.children[-1]
        paths = [leaf.path for leaf in output.leaves if leaf.is_tensor]
        if paths and (
            wrong := _compared(case, paths, lambda: zeroed_output(call.number, lambda: case.run(case.model)))
        ):
            yield f"{output.path}: zero: {wrong}"


def zero_values(case: Case) -> Iterator[str]:
    """At each float input, parameter, buffer and result of an operation, one by one."""
    values, _ = case.probed()
    for scope, call in pairs(case)[0]:
        for match in matches(case, scope, call, values):
            if not match.leaf.is_float or match.expected != values[match.leaf.path]:
                continue
            expected = _zeroed(case, match)
            if expected is not None:
                case.zeroed += 1
                if wrong := _compared(case, [match.leaf.path], expected):
                    yield f"{match.leaf.path}: zero: {wrong}"


def _zeroed(case: Case, match: Match) -> Callable[[], list[str]] | None:
    """The model with zero there, where PyTorch has a means to it."""

    def run() -> list[str]:
        return case.run(case.model)

    node, leaf, number = match.node, match.leaf, match.call.number
    if node.kind == "input":
        return lambda: zeroed_input(number, node.name, leaf.dig, run)
    if node.kind == "parameter":
        tensor = parameter(case, node)
        return None if tensor is None else lambda: zeroed_parameter(number, tensor, run)
    result = match.result
    return None if result is None else lambda: zeroed_result(result, run)
