"""A model of the zoo: run bare, observed by PyTorch's own means, and recorded."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module

import nodes
from libgraphpatch import Patch, PatchableGraph, ProbePatch
from nodes import Leaf, Node
from observe import observe
from values import digest, digests, mapped


def difference(found: list[str], expected: list[str]) -> str:
    """Describes how two lists differ; empty if they are equal."""
    if found == expected:
        return ""
    pairs = [f"{a} instead of {b}" for a, b in zip(found, expected, strict=False) if a != b]
    return pairs[0] if pairs else f"{len(found)} tensors instead of {len(expected)}"


class Case:
    """A model and its runs. Each run has the same random numbers, fresh inputs, and no gradients."""

    def __init__(self, name: str, model: Module, inputs: dict[str, Any]) -> None:
        self.name = name
        self.model = model.eval()
        self.inputs = inputs
        _spread(model)
        self.state = digests(model.state_dict())
        self.bare = self.run(model)
        self.bare_again = self.run(model)
        self.call = observe(lambda: self.run(model))
        self.pg: PatchableGraph
        self.recorded = self._record()
        self.root = self._read()
        self.nodes = [node for node in self.root.walk() if node.kind != "scope"]
        self.scopes = [node for node in self.root.walk() if node.kind == "scope"]
        self.zeroed = 0
        self.leaves: list[Leaf] = [leaf for node in self.nodes for leaf in node.leaves]

    def _record(self) -> list[str]:
        self.pg = PatchableGraph(self.model, **self._fresh())
        with self.pg.recording():
            return self.run(self.pg)

    def _read(self) -> Node:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "graph.json"
            self.pg.save_graph(file)
            return nodes.read(file)

    def _fresh(self) -> dict[str, Any]:
        return mapped(self.inputs, torch.clone)

    def call_with(self, model: Any) -> Any:
        torch.manual_seed(0)
        with torch.no_grad():
            return model(**self._fresh())

    def run(self, model: Any) -> list[str]:
        """All tensors of what the model returns, as text of their bits."""
        return digests(self.call_with(model))

    def patched(self, patches: Mapping[str, Patch[Any] | list[Patch[Any]]]) -> list[str]:
        """The same under patches. A patch that the run does not reach is an error."""
        with self.pg.patch(patches, on_missing="raise"):
            return self.run(self.pg)

    @functools.cached_property
    def _probed(self) -> tuple[dict[str, str], list[str]]:
        probes = {leaf.path: ProbePatch() for leaf in self.leaves}
        output = self.patched(dict(probes))
        return {path: digest(probe.activation) for path, probe in probes.items()}, output

    def probed(self) -> tuple[dict[str, str], list[str]]:
        """The values that probes at all paths keep in one run, and the result of that run."""
        return self._probed

    def counts(self) -> str:
        floats = sum(leaf.is_float for leaf in self.leaves)
        return (
            f"{len(self.scopes)} module calls, {len(self.nodes)} nodes with {len(self.leaves)} values,"
            f" {floats} of them float tensors; {self.zeroed} compared with zero by other means"
        )

    def forget(self) -> None:
        """Frees what takes memory."""
        del self.model, self.pg, self.call, self.inputs


def _spread(model: Module) -> None:
    """Random biases and norms too: where they are zero or one, a patch that was lost would not show."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.add_(torch.randn_like(parameter) * 0.05)
