"""Rows that no patch reaches: what a linear module returns for them is taken from an earlier run, not computed again.

A linear module computes each row of its input by itself. In a sweep most rows are what they were without the patch:
the positions before the patched one in a causal model, say. No model is assumed to be causal: inputs are compared bit
by bit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ._graphs import nodes_below
from ._header import GP_NODE_KIND_INPUT, GP_NODE_KIND_OUTPUT, GP_NODE_KIND_PARAMETER
from ._patch_block import PatchBlock
from ._place import Placed, module_of, skipped
from ._recorder import Recorder
from .flow import SkipPatch, Skipping, original_of

# Integers of the same size, to compare bits.
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}

_LEAST = 1 << 26  # bytes that may be kept for small modules, too


@dataclass
class Budget:
    """How many bytes may still be kept."""

    left: int


@dataclass(kw_only=True)
class UnchangedRows(SkipPatch):
    """Placed at the call of a linear module. The first run keeps the call's input and output; the calls of later runs
    compute only the rows in which their input differs."""

    value: Any = None
    budget: Budget
    given: Tensor | None = field(default=None, init=False)
    output: Tensor | None = field(default=None, init=False)

    @property
    def is_kept(self) -> bool:
        """Whether the first run made this call, and it was kept."""
        return self.output is not None

    def result(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        forward = original_of(module)
        if len(args) != 1 or kwargs or not _is_plain(args[0]):
            return forward(*args, **kwargs)
        if self.given is None or self.output is None:
            return self._first(args[0], forward)
        return self._later(args[0], self.given, self.output, forward)

    def _first(self, given: Tensor, forward: Callable[..., Any]) -> Any:
        # The input may be written after the call.
        copied = given.clone() if given.nbytes <= self.budget.left else None
        output = forward(given)
        if copied is not None and _is_plain(output) and output.shape[:-1] == given.shape[:-1]:
            self.budget.left -= copied.nbytes + output.nbytes
            self.given, self.output = copied, output.clone()
        return output

    def _later(self, given: Tensor, first: Tensor, output: Tensor, forward: Callable[..., Any]) -> Any:
        times = given.shape[0] // first.shape[0] if first.shape[0] else 0
        same = given.dtype == first.dtype and given.device == first.device
        if not same or not times or given.shape != (times * first.shape[0], *first.shape[1:]):
            return forward(given)
        bits = _BITS[given.element_size()]
        differs = (given.view(bits).unflatten(0, (times, -1)) != first.view(bits)).any(-1).flatten()
        rows = differs.nonzero().squeeze(1)
        if rows.numel() == differs.numel():
            return forward(given)
        found = output.repeat(times, *[1] * (output.dim() - 1))
        if rows.numel():
            computed = forward(given.reshape(-1, given.shape[-1])[rows])
            found.view(-1, found.shape[-1])[rows] = computed
        return found


def unchanged_rows(recorder: Recorder, nodes: list[str]) -> tuple[PatchBlock, dict[str, UnchangedRows]]:
    """A block in which unchanged rows are not computed again, and its patches by the path of their call.

    Args:
        nodes: Where the runs are patched. Linear modules that are patched inside are left alone; if any parameter is
            patched, all are, as modules may share it.
    """
    graph, root = recorder.graph(), recorder.root.module()
    others = [place for opened in recorder.opened for place in opened.places]
    patched = [graph.find("", path) for path in [*nodes, *(place.leaf for place in others)]]
    taken = {id(place.done.module) for place in others if isinstance(place.done, Skipping)}
    inside = [path for path in patched if graph.node(path).kind not in (GP_NODE_KIND_INPUT, GP_NODE_KIND_OUTPUT)]
    found: list[tuple[Placed, UnchangedRows]] = []
    if root is not None and not any(graph.node(path).kind == GP_NODE_KIND_PARAMETER for path in inside):
        # As much memory as the parameters take.
        budget = Budget(max(_LEAST, sum(parameter.nbytes for parameter in root.parameters())))
        for scope in [path for path, node, _ in nodes_below(graph.whole()) if node["kind"] == "scope"]:
            module = module_of(graph, root, scope)
            if module is None or id(module) in taken or not _is_linear(module):
                continue
            if any(path.startswith(f"{scope}.") for path in inside):
                continue
            patch = UnchangedRows(budget=budget)
            found.append((skipped(graph, root, scope, patch), patch))
    block = PatchBlock(recorder, [place for place, _ in found], on_missing="ignore", this_thread=True)
    return block, {place.path: patch for place, patch in found}


def _is_plain(value: Any) -> bool:
    return (
        type(value) is Tensor
        and value.layout == torch.strided
        and value.dtype.is_floating_point
        and value.element_size() in _BITS
        and value.dim() > 1
        and bool(value.shape[-1])
    )


def _is_linear(module: nn.Module) -> bool:
    """Whether the module computes each row of its input by itself. A subclass may do otherwise."""
    of_transformers = getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", None)
    if type(module) is not nn.Linear and (of_transformers is None or type(module) is not of_transformers):
        return False
    # A weight of another class, a quantized one say, may be multiplied in another way.
    return "forward" not in vars(module) and type(module.weight) in (Tensor, nn.Parameter)
