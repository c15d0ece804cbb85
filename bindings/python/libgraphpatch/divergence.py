"""Where two models, two builds of a model or two forms of it begin to compute different values."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from . import _trees
from ._call import Call
from ._header import GP_NODE_KIND_PARAMETER
from ._recorded import Recorded
from ._run_kept import Nodes, keep, paths_of
from ._side_effects import RandomNumbers
from ._taps import ONE_BY_ONE
from ._thread import thread
from .cache import ActivationCache


@dataclass(frozen=True)
class Statistics:
    """What a value is like. The numbers are of its finite elements; they are NaN where it has none.

    Attributes:
        shape, dtype: The tensor's.
        min, max, mean: Of the elements; of a complex value's absolute values.
        norm: The Euclidean norm of the whole value.
        nan, inf: How many elements are NaN, and how many are infinite.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    min: float
    max: float
    mean: float
    norm: float
    nan: int
    inf: int

    @classmethod
    def of(cls, value: Tensor) -> Statistics:
        wide = _wide(value)
        wide = wide.abs() if wide.is_complex() else wide
        finite = wide[wide.isfinite()]
        low = high = mean = norm = math.nan
        if finite.numel():
            low, high = finite.min().item(), finite.max().item()
            mean, norm = finite.mean().item(), finite.norm().item()
        nan, inf = int(wide.isnan().sum()), int(wide.isinf().sum())
        return cls(tuple(value.shape), value.dtype, low, high, mean, norm, nan, inf)

    def __str__(self) -> str:
        shape = ", ".join(map(str, self.shape))
        more = "".join(f", {count} {name}" for name, count in (("NaN", self.nan), ("Inf", self.inf)) if count)
        numbers = f"min {self.min:.6g}, max {self.max:.6g}, mean {self.mean:.6g}, norm {self.norm:.6g}"
        return f"({shape}) {str(self.dtype).removeprefix('torch.')}, {numbers}{more}"


@dataclass(frozen=True)
class Difference:
    """Two values of one node that differ by more than the tolerances.

    Attributes:
        path: The node.
        how: By how much and where they differ, in words.
        largest: The largest distance of two elements; infinite between NaN and a number, and between different sizes.
        one, other: What the two values are like.
        code: The user's line that computed the node, as the first graph has it; empty if it is not known.
    """

    path: str
    how: str
    largest: float
    one: Statistics
    other: Statistics
    code: str

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.how}", *self.code.splitlines(), f"one:   {self.one}", f"other: {self.other}"]
        return "\n    ".join(lines)


@dataclass(repr=False)
class Divergence:
    """What :meth:`PatchableGraph.first_divergence` found. True if no value and no result differs.

    Attributes:
        first: The first node, in the order of the first graph, whose values differ by more than the tolerances; where
            there is none and the results differ, the first one of ``unlike``; else None.
        differences: All of these nodes, in that order.
        agree: The paths whose values agree.
        unlike: The nodes of the same path whose values have different sizes. Compiled code often computes a few such
            values, masks for instance, in another way than the model; they are no differences where the results agree.
        only_one, only_other: The paths that only the one or only the other run computed a value for. Those that
            compiled code has no value for are among them.
        results_agree: Whether what the two runs returned agrees, also without anybody looking inside.
        notes: What else there is to know.
    """

    differences: list[Difference] = field(default_factory=list)
    unlike: list[Difference] = field(default_factory=list)
    agree: list[str] = field(default_factory=list)
    only_one: list[str] = field(default_factory=list)
    only_other: list[str] = field(default_factory=list)
    results_agree: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def first(self) -> Difference | None:
        others = [] if self.results_agree else self.unlike
        return next(iter([*self.differences, *others]), None)

    def __bool__(self) -> bool:
        return self.results_agree and not self.differences

    def __repr__(self) -> str:
        shared = len(self.agree) + len(self.differences) + len(self.unlike)
        lines = [f"{len(self.differences)} of {shared} shared values differ"]
        if self.unlike:
            lines[0] += f", {len(self.unlike)} have different sizes"
        if self.first is not None:
            lines += [f"first: {self.first}"]
        elif not self.results_agree:
            lines[0] += ", but the results do"
        for whose, paths in (("the first", self.only_one), ("the second", self.only_other)):
            if paths:
                lines.append(f"only {whose} has {len(paths)} values: {', '.join(paths[:5])}{', …' * (len(paths) > 5)}")
        return "\n".join([*lines, *self.notes])


def first_divergence(
    one: Recorded,
    other: Recorded,
    call: Call,
    call_of_other: Call,
    nodes: Nodes,
    rtol: float,
    atol: float,
) -> Divergence:
    """Compares the values of a run of each."""
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if math.isnan(tolerance) or tolerance < 0:
            raise ValueError(f"{name}={tolerance}: expected a number of at least 0")
    mine, theirs = paths_of(one, nodes), dict.fromkeys(paths_of(other, None))
    if nodes is not None:
        for path in mine:
            one.graph[path]  # raises KeyError for a path that the graph does not have
    shared = [path for path in mine if path in theirs]
    if not shared:
        raise ValueError("the two graphs have no node in common: are these two forms of one model?")
    found = Divergence()
    with torch.no_grad(), _same_random_numbers() as again:
        results = []
        kept: list[ActivationCache] = []
        for pg, given in ((one, call), (other, call_of_other)):
            again()
            results.append(_copies(pg(*given.args, **given.kwargs)))
            kept.append(_values(pg, given, shared, again, found.notes))
    for path in shared:
        _compare(found, path, kept[0].get(path), kept[1].get(path), rtol, atol, one)
    if nodes is None:
        common = set(shared)
        found.only_one += [path for path in mine if path not in common]
        found.only_other += [path for path in theirs if path not in common]
    found.results_agree = _all_agree(results[0], results[1], rtol, atol)
    for which, bare, cache in zip(("first", "second"), results, kept, strict=True):
        if not _all_agree(bare, _copies(cache.output), rtol, atol):
            found.notes.append(
                f"the {which} model's result is another one while its values are looked at: its compiler makes other"
                " code then. Name fewer nodes."
            )
    return found


def _values(pg: Recorded, call: Call, paths: list[str], again: Callable[[], None], notes: list[str]) -> ActivationCache:
    """The values of a run. Parameters are read in a run of their own, as compiled code has no taps beside these."""
    graph = pg._recorder.graph()
    parameters: list[str] = []
    computed: list[str] = []
    for path in paths:
        (parameters if graph.node(path).kind == GP_NODE_KIND_PARAMETER else computed).append(path)
    again()
    read = keep(pg, call.args, call.kwargs, parameters, None, None, missing="ignore")
    again()
    with _values_of_compiled_code(notes):
        kept = keep(pg, call.args, call.kwargs, computed, None, None, missing="ignore")
    return ActivationCache({**read, **kept}, output=kept.output)


def _compare(
    found: Divergence, path: str, one: Tensor | None, other: Tensor | None, rtol: float, atol: float, graph: Recorded
) -> None:
    if one is None or other is None:
        if one is not None:
            found.only_one.append(path)
        elif other is not None:
            found.only_other.append(path)
        return
    how, largest = _difference(one, other, rtol, atol)
    if not how:
        found.agree.append(path)
        return
    code = str(graph.graph[path]._code).strip()
    statistics = Statistics.of(one), Statistics.of(other)
    differing = found.differences if one.shape == other.shape else found.unlike
    differing.append(Difference(path, how, largest, *statistics, code))


def _difference(one: Tensor, other: Tensor, rtol: float, atol: float) -> tuple[str, float]:
    """How the values differ, and by how much; an empty text where they agree."""
    if one.shape != other.shape:
        return f"sizes {tuple(one.shape)} and {tuple(other.shape)}", math.inf
    a, b = _wide(one), _wide(other).to(one.device)
    if a.dtype != b.dtype:
        a, b = a.to(torch.promote_types(a.dtype, b.dtype)), b.to(torch.promote_types(a.dtype, b.dtype))
    differ = ~torch.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
    count = int(differ.sum())
    if not count:
        return "", 0.0
    distance = (a - b).abs().where(differ, torch.zeros((), dtype=torch.float64, device=a.device))
    distance = distance.nan_to_num(nan=math.inf, posinf=math.inf)
    largest = distance.max().item()
    place = [int(index) for index in torch.unravel_index(distance.argmax(), distance.shape)]
    where = f" at {place}: {a[tuple(place)].item():.6g} and {b[tuple(place)].item():.6g}"
    return f"{count} of {a.numel()} elements differ, by up to {largest:.3g}{where}", largest


def _wide(value: Tensor) -> Tensor:
    """The value in double precision, strided and without history."""
    value = value.detach()
    if value.is_quantized:
        value = value.dequantize()
    if value.layout != torch.strided:
        value = value.to_dense()
    return value.to(torch.complex128 if value.is_complex() else torch.float64)


def _all_agree(one: list[Tensor], other: list[Tensor], rtol: float, atol: float) -> bool:
    return len(one) == len(other) and not any(_difference(a, b, rtol, atol)[0] for a, b in zip(one, other, strict=True))


def _copies(result: Any) -> list[Tensor]:
    """The tensors of a result. Code of torch.compile may reuse their memory in its next run."""
    return [tensor.detach().clone() for tensor in _trees.tensors(result)]


@contextlib.contextmanager
def _values_of_compiled_code(notes: list[str]) -> Generator[None, None, None]:
    """Compiled code is looked into by taps only, and never replaced by a run operation by operation."""
    before, thread.only_taps = thread.only_taps, set()
    try:
        yield
        notes += [f"{name}: {ONE_BY_ONE}" for name in sorted(thread.only_taps or ())]
    finally:
        thread.only_taps = before


@contextlib.contextmanager
def _same_random_numbers() -> Generator[Callable[[], None], None, None]:
    """A function that sets the generators back to where they are now. They are there again at the end, too."""
    devices: Iterable[int] = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    now = RandomNumbers(devices)
    try:
        yield now.restore
    finally:
        now.restore()
