"""Names for the values inside a package of AOTInductor's.

A package tells which kernels its model calls, but not which values of the original model these compute. The program
that it was compiled from tells it: a value in the package's memory is given the name of a value of the program if both
are equal, and if a change of the one has the same effect on the results as the same change of the other.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from ._exported import class_of
from ._graphs import nodes_below
from .patchable_graph import PatchableGraph
from .patches import ReplacePatch

_FILE = "graphpatch_names.json"
_VERSION = 1
# Where a module's call of a package shows its inside.
_SCOPE = "aoti_model."
# How much further the results of two changes may be from each other than the unchanged results are, and what is allowed
# at least, as a share of the largest element. A change must move the results much further.
_FACTOR, _LEAST, _MOVES = 8, 1e-5, 20


@dataclass(frozen=True)
class Named:
    """What :func:`name_package` has found.

    Attributes:
        names: The paths of the program's values that the package has, and the kernel that computes each.
        missing: The paths of those that it does not have: they were fused away, or share the memory of others.
    """

    names: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


class _Holder(Module):  # type: ignore[misc]
    """Calls a package."""

    def __init__(self, package: Any) -> None:
        super().__init__()
        self.package = package

    def forward(self, *args: Any) -> Any:
        return self.package(*args)


def name_package(
    program: Any,
    package: str | os.PathLike[str],
    *inputs: Tensor,
    output: str | os.PathLike[str],
    also: Sequence[Tensor] | None = None,
) -> Named:
    """Writes a copy of a package in which values have the names that the program gives them. Nothing is compiled, and
    the package's code stays as it is. Every program that loads the copy, in C++ or Python, sees those names.

    Args:
        program: The program (``torch.export.ExportedProgram``) that the package was compiled from.
        package: The package.
        inputs: Tensors to run both with.
        output: The file that is written.
        also: Inputs of other sizes, if sizes may differ from run to run. Sizes of values that follow from those of the
            inputs are then found out.

    Raises:
        ValueError: The package shows nothing of its inside, or does not compute what the program computes.
    """
    held = PatchableGraph(_Holder(torch._inductor.aoti_load_package(os.fspath(package))), *inputs)
    module = program.module()
    found = _Comparison(PatchableGraph(module, *inputs), held, inputs, also).found()
    _write(found, package, output)
    return Named(
        {row["path"]: row["kernel"] for row in found["nodes"] if row["fused"] is None},
        [row["path"] for row in found["nodes"] if row["fused"] is not None],
    )


def _nodes(pg: PatchableGraph, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, node, _ in nodes_below(pg._recorder.graph().whole()):
        if node["kind"] == kind:
            yield path, node


def _tensors(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else [value for value in result if isinstance(value, Tensor)]


def _distance(one: list[Tensor], other: list[Tensor]) -> float:
    """The largest distance of two elements, as a share of the largest element."""
    largest = max((value.abs().max().item() for value in one if value.numel()), default=0.0)
    apart = max(((a - b).abs().max().item() for a, b in zip(one, other, strict=True) if a.numel()), default=0.0)
    return apart / largest if largest else apart


class _Comparison:
    """A program and its package, run with the same inputs."""

    def __init__(
        self, program: PatchableGraph, package: PatchableGraph, inputs: Sequence[Tensor], also: Sequence[Tensor] | None
    ) -> None:
        self._program, self._package, self._inputs, self._also = program, package, inputs, also
        with torch.no_grad():
            self._bare = _tensors(program(*inputs)), _tensors(package(*inputs))
            self._shapes = [self._sizes(given) for given in (inputs, also) if given is not None]
        self._apart = _distance(*self._bare)
        if not self._apart < 0.1:
            raise ValueError("the package does not compute what the program computes")
        self._ops = dict(_nodes(program, "op"))
        own = [(path, node) for path, node in _nodes(package, "op") if path.startswith(_SCOPE)]
        if not own:
            raise ValueError("the package shows nothing of its inside: " + "; ".join(package.notes))
        self._kernels = [path.removeprefix(_SCOPE) for path, _ in own]

    def _sizes(self, given: Sequence[Tensor]) -> dict[str, tuple[int, ...]]:
        return {path: tuple(value.shape) for path, value in self._program.cache(*given).items()}

    def found(self) -> dict[str, Any]:
        """The content of the file."""
        with torch.no_grad():
            names = self._names()
        rows: list[dict[str, Any]] = []
        kernel = self._kernels[0]
        for path, node in self._ops.items():
            row = {"path": path, "target": node.get("target", ""), "output": None, "sizes": None, "fused": None}
            if path in names:
                kernel = names[path]["kernel"]
                row |= names[path]
            else:
                row |= {"kernel": kernel, "fused": self._fate(path, list(names))}
            rows.append(row)
        root = self._program._recorder.graph().whole()
        inputs = [node["name"] for node in root.get("children", ()) if node["kind"] == "input"]
        scopes = [
            (path, node.get("target", ""), node.get("module_path", "")) for path, node in _nodes(self._program, "scope")
        ]
        name = class_of(self._program.module).rpartition(".")[2]
        return {"version": _VERSION, "class": name, "inputs": inputs, "scopes": scopes, "nodes": rows}

    def _fate(self, path: str, named: list[str]) -> str:
        order = list(self._ops)
        at = order.index(path)
        before = next((other for other in reversed(order[:at]) if other in named), None)
        behind = next((other for other in order[at:] if other in named), None)
        nearest = " and ".join(f"`{other}`" for other in (before, behind) if other)
        return f"value that the package does not keep (nearest: {nearest})"

    def _names(self) -> dict[str, dict[str, Any]]:
        """The program's values that are in the package's memory, in the order in which they get there."""
        values = self._program.cache(*self._inputs)
        names: dict[str, dict[str, Any]] = {}
        for own, kept in self._package.cache(*self._inputs).items():
            node, _, element = own.partition("|")
            kernel = node.removeprefix(_SCOPE)
            if kernel == node or kernel not in self._kernels:
                continue
            for path in self._ops:
                value = values.get(path)
                if value is None or path in names or not self._is_equal(value, kept):
                    continue
                sizes = self._sizes_of(path, value, kept)
                if sizes != [] and self._acts_alike(path, own, value, kept):
                    output = int(element.removeprefix("sub_") or 0)
                    names[path] = {"kernel": kernel, "output": output, "sizes": sizes}
        return names

    @staticmethod
    def _is_equal(value: Tensor, kept: Tensor) -> bool:
        if value.dtype != kept.dtype or value.numel() != kept.numel() or not value.is_floating_point():
            return False
        wide = value.reshape(-1).double(), kept.reshape(-1).double()
        return _distance([wide[0]], [wide[1]]) < 1e-3

    def _sizes_of(self, path: str, value: Tensor, kept: Tensor) -> list[int] | None:
        """None if the value has the sizes that it has in memory; [] if they cannot be told."""
        if value.shape == kept.shape:
            return None
        try:
            kept.view(value.shape)
        except RuntimeError:  # no view has that shape, and a patch has to act on the value's own memory
            return []
        if len(self._shapes) == 1:
            return list(value.shape)
        assert self._also is not None
        one, other = (shapes.get(path, ()) for shapes in self._shapes)
        sizes = []
        for first, second in zip(one, other, strict=True):
            known = [
                -1 - 64 * index - at
                for index, (a, b) in enumerate(zip(self._inputs, self._also, strict=True))
                for at, pair in enumerate(zip(a.shape, b.shape, strict=True))
                if pair == (first, second)
            ]
            if first != second and not known:
                return []
            sizes.append(first if first == second else known[0])
        return sizes

    def _acts_alike(self, path: str, own: str, value: Tensor, kept: Tensor) -> bool:
        """Whether another value in its place has the same effect on the results."""
        generator = torch.Generator().manual_seed(1)
        spread = value.float().std().nan_to_num().item() or 1.0
        other = (value.float() + spread * torch.randn(value.shape, generator=generator)).to(value.dtype)
        program: list[Tensor] = []
        package: list[Tensor] = []
        with self._program.patch({path: ReplacePatch(value=other)}, on_missing="raise"):
            program = [result.clone() for result in _tensors(self._program(*self._inputs))]
        with self._package.patch({own: ReplacePatch(value=other.reshape(kept.shape))}, on_missing="raise"):
            package = [result.clone() for result in _tensors(self._package(*self._inputs))]
        allowed = _FACTOR * self._apart + _LEAST
        moved = _distance(self._bare[0], program)
        return _distance(program, package) <= allowed and moved > _MOVES * allowed


def _write(found: dict[str, Any], package: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    with zipfile.ZipFile(package) as archive:
        inside = "/data/aotinductor/model/"
        source = next(name for name in archive.namelist() if inside in f"/{name}" and name.endswith(".wrapper.cpp"))
        found["source"] = zlib.crc32(archive.read(source))
    shutil.copyfile(package, output)
    with zipfile.ZipFile(output, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{source.rpartition('/')[0]}/{_FILE}", json.dumps(found))
