"""One run of which values are kept: what :meth:`PatchableGraph.cache` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._place import leaves
from ._recorded import Recorded
from .cache import ActivationCache
from .errors import PathError
from .flow import StopPatch
from .graph import NodePath
from .patches import Patch
from .probes import ProbePatch, copy_of

Metric = Callable[[Any], Tensor]
Nodes = str | NodePath | Sequence[str | NodePath] | None


@dataclass(kw_only=True)
class _Kept(ProbePatch[Any]):
    """A probe that keeps its value as a part of the autograd graph, if the value has a gradient."""

    def __init__(self) -> None:
        super().__init__(grad=True)

    def _changes(self) -> bool:
        return False

    def _at_constant(self) -> None:
        self.keeps_gradient = False

    def op(self, original_output: Any) -> Any:
        if isinstance(original_output, Tensor) and original_output.dtype.is_floating_point:
            return super().op(original_output)
        self.activation = copy_of(original_output)
        return original_output


def paths_of(pg: Recorded, nodes: Nodes) -> list[str]:
    """The paths that the given paths and patterns stand for, each once, in the order given."""
    graph = pg._recorder.graph()
    if nodes is None:
        return graph.search("**", shape="...")
    given = [nodes] if isinstance(nodes, (str, NodePath)) else [*nodes]
    found = [path for node in given for path in leaves(graph, str(node))]
    return [*dict.fromkeys(found)]


def keep(
    pg: Recorded,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    nodes: Nodes,
    grads: Metric | None,
    until: str | NodePath | None,
    missing: str | None = None,
) -> ActivationCache:
    """The values of one run. ``missing`` is what is done about nodes that it does not come by, as in ``on_missing``."""
    if grads is not None and until is not None:
        raise ValueError("a run that ends early has no output to compute a loss from: give either grads= or until=")
    kind = ProbePatch[Any] if grads is None else _Kept
    probes = {path: kind() for path in paths_of(pg, nodes)}
    patches: dict[str, list[Patch[Any]]] = {path: [probe] for path, probe in probes.items()}
    if until is not None:
        last = paths_of(pg, until)
        if len(last) != 1:
            raise PathError(f"until={str(until)!r} means {len(last)} nodes; a run ends at one")
        patches.setdefault(last[0], []).append(StopPatch())
    output: Any = None
    missing = missing or ("ignore" if nodes is None or until is not None else "warn")
    with torch.set_grad_enabled(grads is not None or torch.is_grad_enabled()):
        with pg.patch(patches, on_missing=missing):
            output = pg(*args, **kwargs)
        values: dict[str, Any] = {path: probe.activation for path, probe in probes.items()}
        kept = {path: value for path, value in values.items() if isinstance(value, Tensor)}
        gradients = {} if grads is None else _gradients(kept, grads(output))
    return ActivationCache({path: value.detach() for path, value in kept.items()}, output=output, grads=gradients)


def _gradients(kept: Mapping[str, Tensor], loss: Tensor) -> dict[str, Tensor]:
    wanted = {path: value for path, value in kept.items() if value.requires_grad}
    if not wanted:
        return {}
    found = torch.autograd.grad(loss, [*wanted.values()], allow_unused=True)
    return {path: gradient for path, gradient in zip(wanted, found, strict=True) if gradient is not None}
