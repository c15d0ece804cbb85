"""Names for the values inside a package of AOTInductor's.

A package tells which kernels its model calls, but not which values of the original model these compute. The program
that it was compiled from tells it: a value in the package's memory is given the name of a value of the program if both
are equal, and if a change of the one has the same effect on the results as the same change of the other.
"""

from __future__ import annotations

import itertools
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
from ._files import beside
from ._graphs import nodes_below
from .patchable_graph import PatchableGraph
from .patches import ReplacePatch

_FILE = "graphpatch_names.json"
_VERSION = 2
# Where a module's call of a package shows its inside.
_SCOPE = "aoti_model."
# How much further the results of two changes may be from each other than the unchanged results are, and what is allowed
# at least, as a share of the largest element. A change must move the results much further.
_FACTOR, _LEAST, _MOVES = 8, 1e-5, 20
# Values of more dimensions are not looked for with their dimensions in another order: there are too many orders.
_RANK = 5


@dataclass(frozen=True)
class Named:
    """What :func:`name_package` has found.

    Attributes:
        names: The paths of the program's values that the package has, and the kernel that computes each.
        missing: The paths of those that it does not have: they were fused away, or are a part of others.
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


def _are_equal(one: Tensor, other: Tensor) -> bool:
    """Whether the elements are equal, one after the other, up to rounding."""
    return _distance([one.reshape(-1).double()], [other.reshape(-1).double()]) < 1e-3


def _is_view(tensor: Tensor, shape: Sequence[int]) -> bool:
    """Whether the tensor can have the shape without being copied."""
    try:
        tensor.view(shape)
    except RuntimeError:
        return False
    return True


def _flat(tensor: Tensor) -> Tensor | None:
    """The tensor's elements in the order of memory. None if it has gaps, or elements that share memory."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    in_order = tensor.permute(order)
    return in_order.reshape(-1) if in_order.is_contiguous() else None


@dataclass(frozen=True)
class _Layout:
    """How a value lies in the memory of a tensor of the package.

    Attributes:
        shape: The value's shape.
        sizes: The same, as the file has it; None if the tensor has that shape.
        order: The value's dimensions in the order of memory; None if the tensor's elements have the same order.
    """

    shape: torch.Size
    sizes: list[int] | None = None
    order: list[int] | None = None

    def alike(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """A tensor with the layout of `kept`, and the view of it that is the value."""
        whole = torch.empty_strided(kept.shape, kept.stride(), dtype=kept.dtype)
        if self.order is None:
            return whole, whole.view(self.shape)
        strides, stride = [0] * len(self.shape), 1
        for dimension in reversed(self.order):
            strides[dimension], stride = stride, stride * self.shape[dimension]
        return whole, whole.as_strided(self.shape, strides)


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
            row = {"path": path, "target": node.get("target", "")}
            row |= {"output": None, "sizes": None, "order": None, "fused": None}
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
                if value is None or path in names:
                    continue
                layout = self._layout(path, value, kept)
                if layout is not None and self._acts_alike(path, own, value, layout.alike(kept)):
                    output = int(element.removeprefix("sub_") or 0)
                    names[path] = {"kernel": kernel, "output": output}
                    names[path] |= {"sizes": layout.sizes, "order": layout.order}
        return names

    def _layout(self, path: str, value: Tensor, kept: Tensor) -> _Layout | None:
        """How the value lies in the memory of a tensor of the package. None if it does not, or it cannot be told."""
        if value.dtype != kept.dtype or value.numel() != kept.numel() or not value.is_floating_point():
            return None
        sizes = self._sizes_of(path, value)
        if _are_equal(value, kept):
            if value.shape == kept.shape:
                return _Layout(value.shape)
            # A patch has to act on the value's own memory.
            return _Layout(value.shape, sizes) if sizes is not None and _is_view(kept, value.shape) else None
        flat = _flat(kept)
        if flat is None or sizes is None or value.dim() > _RANK:
            return None
        long = [at for at, size in enumerate(value.shape) if size > 1]
        short = [at for at, size in enumerate(value.shape) if size <= 1]
        if any(sizes[at] < 0 for at in short):  # where it lies when it is longer cannot be seen here
            return None
        for order in itertools.permutations(long):
            dimensions = (*short, *order)
            if _are_equal(value.permute(dimensions), flat):
                return _Layout(value.shape, sizes, list(dimensions))
        return None

    def _sizes_of(self, path: str, value: Tensor) -> list[int] | None:
        """The value's sizes, as the file has them. None if it cannot be told what they are for other inputs."""
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
                return None
            sizes.append(first if first == second else known[0])
        return sizes

    def _acts_alike(self, path: str, own: str, value: Tensor, memory: tuple[Tensor, Tensor]) -> bool:
        """Whether another value in its place has the same effect on the results. `memory` is a tensor of the package,
        and a view of it that is the value."""
        generator = torch.Generator().manual_seed(1)
        spread = value.float().std().nan_to_num().item() or 1.0
        other = (value.float() + spread * torch.randn(value.shape, generator=generator)).to(value.dtype)
        whole, place = memory
        place.copy_(other)
        program: list[Tensor] = []
        package: list[Tensor] = []
        with self._program.patch({path: ReplacePatch(value=other)}, on_missing="raise"):
            program = [result.clone() for result in _tensors(self._program(*self._inputs))]
        with self._package.patch({own: ReplacePatch(value=whole)}, on_missing="raise"):
            package = [result.clone() for result in _tensors(self._package(*self._inputs))]
        allowed = _FACTOR * self._apart + _LEAST
        moved = _distance(self._bare[0], program)
        return _distance(program, package) <= allowed and moved > _MOVES * allowed


def _write(found: dict[str, Any], package: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    with zipfile.ZipFile(package) as archive:
        inside = "/data/aotinductor/model/"
        source = next(name for name in archive.namelist() if inside in f"/{name}" and name.endswith(".wrapper.cpp"))
        found["source"] = zlib.crc32(archive.read(source))
    with beside(output) as part:
        shutil.copyfile(package, part)
        with zipfile.ZipFile(part, "a", zipfile.ZIP_STORED) as archive:
            archive.writestr(f"{source.rpartition('/')[0]}/{_FILE}", json.dumps(found))
