"""How a sweep is run. Several experiments are rows of one call, and a call need not compute modules before its first
patch."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _trees
from ._call import Call
from ._index import as_key
from ._patch_block import PatchBlock
from ._place import Placed, Weights, skipped
from ._recorded import Recorded
from ._run_kept import Nodes, paths_of
from ._unchanged_rows import UnchangedRows, unchanged_rows
from .flow import KeepPatch, SkipPatch, Skipping
from .patches import CustomPatch, Patch, ReplacePatch
from .sweep import Sweep

Metric = Callable[[Any], Any]


class Experiment(NamedTuple):
    """The patch at one node and position."""

    node: int
    position: int
    path: str
    place: Any  # the position itself; None for all


class Sweeping:
    """One sweep.

    Args:
        patch: What is done at each node; ``source`` makes a ReplacePatch of its values instead.
        dim: The dimension of a node's value that positions are of.
    """

    def __init__(
        self,
        pg: Recorded,
        call: Call,
        nodes: list[str],
        patch: Patch[Any],
        source: Mapping[str, Tensor] | None,
        metric: Metric,
        dim: int,
    ) -> None:
        self.pg, self.call, self.nodes, self.patch, self.source, self.dim = pg, call, nodes, patch, source, dim
        self.metric = metric
        self.runs = 0
        self.notes: list[str] = []
        # Nodes whose first dimension is not the batch.
        self.apart: set[str] = set()
        self.shapes: dict[str, torch.Size] = {}
        # What modules returned in the first run, by the path of their call.
        self.kept: dict[str, Any] = {}
        self.skips: dict[str, Placed] = {}
        # How many experiments are rows of the present call.
        self.times = 1
        self.undo = contextlib.ExitStack()
        self.baseline = torch.empty(0)

    # --- the first runs ---

    def begin(self, batch: int, resume: bool) -> tuple[int, bool]:
        """Makes the run without the patch. Returns how many experiments may be rows of one call, and whether calls may
        leave out the modules before their first patch."""
        before = self._before(self.nodes[-1])
        linear: dict[str, UnchangedRows] = {}
        if resume and batch > 1:  # computed among fewer rows, a row may be rounded in another way
            block, linear = unchanged_rows(self.pg._recorder, self.nodes)
            self.undo.enter_context(block)
        keeps = [self._placed(scope, KeepPatch(kept=self._keep(scope))) for scope in before if scope not in linear]
        self.baseline = self._measured(
            self._run(self.call, self._looks() + [keep for keep in keeps if keep and resume])
        )
        self.kept |= {scope: linear[scope].output for scope in before if scope in linear and linear[scope].is_kept}
        for scope in self.kept:
            place = self._placed(scope, SkipPatch(value=self._again(scope)))
            assert place is not None and isinstance(place.done, Skipping)
            place.done.open()  # once for all calls
            self.undo.callback(place.done.close)
            self.skips[scope] = place
        if resume and not self._is_same(self._run(self.call, self._skips(self.nodes[-1]))):
            self.notes.append("whole runs: a run that begins later gives another result")
            resume = False
        if batch > 1:
            batch = self._possible(batch, resume)
        return batch, resume

    def _placed(self, scope: str, patch: SkipPatch) -> Placed | None:
        recorder = self.pg._recorder
        try:
            return skipped(recorder.graph(), recorder.root.module(), scope, patch)
        except ValueError:
            return None

    def _looks(self, disturb: int | None = None) -> list[Placed]:
        """Patches that note the nodes' shapes. With ``disturb``, they also change all rows but the first so many."""
        looks = [(path, CustomPatch(custom_op=self._look(path, disturb))) for path in self.nodes]
        return [Placed(path, look, path, look) for path, look in looks]

    def _possible(self, batch: int, resume: bool) -> int:
        count = self.call.rows
        if not count:
            self.notes.append("one experiment a run: no input is a batch")
            return 1
        single = dict(self.shapes)
        skips = self._skips(self.nodes[0]) if resume else []
        try:
            output = self._run(self.call.repeated(2), skips + self._looks(disturb=count), 2)
            same = self._is_same(_trees.part(output, count, 0, 2))
        except Exception as why:
            self.notes.append(f"one experiment a run: the module takes no larger batch: {why}")
            return 1
        if not same:
            self.notes.append("one experiment a run: rows of a batch influence one another, or are random")
            return 1
        apart = [path for path in self.nodes if not _grows(single[path], self.shapes[path], count)]
        if apart:
            self.notes.append(f"one experiment a run where the first dimension is no batch: {', '.join(apart)}")
            self.apart = {*apart}
        self.shapes = single
        return batch

    def _look(self, path: str, disturb: int | None) -> Callable[[Any], Any]:
        def look(value: Any) -> Any:
            self.shapes[path] = value.shape
            if disturb is not None and value.dim() and value.shape[0] == 2 * disturb and value.is_floating_point():
                value[disturb:] = value[disturb:] * 1.5 + 1
            return value

        return look

    def _keep(self, scope: str) -> Callable[[Any], None]:
        def keep(output: Any) -> None:
            self.kept[scope] = _trees.mapped(output, lambda tensor: tensor.detach().clone())

        return keep

    def _is_same(self, output: Any) -> bool:
        """Whether an output has the metric of the first run, up to rounding."""
        tolerance = min(0.05, 1e3 * torch.finfo(self._dtype()).eps)
        scale = float(self.baseline.abs().max()) if self.baseline.numel() else 0.0
        atol = tolerance * max(scale, 1e-3)
        return bool(torch.allclose(self._measured(output), self.baseline, rtol=tolerance, atol=atol))

    def _dtype(self) -> torch.dtype:
        given = [*self.pg.parameters(), *_trees.tensors(self.call)]
        return next((tensor.dtype for tensor in given if tensor.is_floating_point()), torch.float32)

    # --- calls that begin later ---

    def _before(self, path: str) -> list[str]:
        """The outermost calls of modules that have ended before the node is computed."""
        found: list[str] = []
        node, around = self.pg._recorder.graph().whole(), ""
        for name in path.partition("|")[0].split("."):
            children = node.get("children", [])
            at = next((number for number, child in enumerate(children) if child["name"] == name), 0)
            found += [around + child["name"] for child in children[:at] if child["kind"] == "scope"]
            node, around = children[at], f"{around}{name}."
        scope = around[: -len(".output.")] if around.endswith(".output.") else ""
        if scope:  # if the node is a module's output, that module has ended, too
            found = [known for known in found if not known.startswith(f"{scope}.")] + [scope]
        return found

    def _skips(self, path: str) -> list[Placed]:
        return [self.skips[scope] for scope in self._before(path) if scope in self.skips]

    def _again(self, scope: str) -> Callable[..., Any]:
        """A function that returns what the module returned in the first run, repeated for the rows of the present
        call."""
        return lambda *_, **__: _trees.repeated(self.kept[scope], self.call.rows or 0, self.times)

    # --- experiments ---

    def measure(self, experiments: Sequence[Experiment], resume: bool) -> list[Tensor]:
        """The metric of each experiment. All of them are rows of one call."""
        times = len(experiments)
        first = min(experiments, key=lambda experiment: experiment.node)
        places = self._skips(first.path) if resume else []
        weights = Weights(self.pg._recorder.graph(), self.pg._recorder.root.module())
        for number, experiment in enumerate(experiments):
            patch = self._patch(experiment, number, times)
            places.append(weights.placed(experiment.path, patch))
        output = self._run(self.call.repeated(times) if times > 1 else self.call, places, times)
        count = self.call.rows or 0
        parts = [output] if times == 1 else [_trees.part(output, count, number, times) for number in range(times)]
        return [self._measured(part) for part in parts]

    def _patch(self, experiment: Experiment, number: int, times: int) -> Patch[Any]:
        count = self.call.rows or 0
        rows = slice(number * count, (number + 1) * count) if times > 1 else slice(None)
        key, part = self._key(experiment, rows), self._key(experiment, slice(None))
        if self.source is not None:
            return ReplacePatch(value=self.source[experiment.path][as_key(part)], slice=key)
        if any(each.name == "slice" for each in dataclasses.fields(self.patch)):
            return dataclasses.replace(self.patch, slice=key)  # type: ignore[call-arg]
        return CustomPatch(custom_op=self.patch, slice=key)

    def _key(self, experiment: Experiment, rows: slice) -> Any:
        own = getattr(self.patch, "slice", None) if self.source is None else None
        if experiment.place is None:
            if own is None:
                return (rows, ...) if self.shapes[experiment.path] else None
            items = own if isinstance(own, tuple) else (own,)
            if items[0] == slice(None):
                return (rows, *items[1:])
            return (rows, *items) if items[0] is ... else own
        between = [slice(None)] * (self.dim - 1)
        return (rows, *between, experiment.place) if self.dim else (experiment.place,)

    def _run(self, call: Call, places: list[Placed], times: int = 1) -> Any:
        self.runs += 1
        self.times = times
        with torch.no_grad(), PatchBlock(self.pg._recorder, places, on_missing="raise"):
            return self.pg(*call.args, **call.kwargs)

    def _measured(self, output: Any) -> Tensor:
        return torch.as_tensor(self.metric(output)).detach().clone()


def _grows(single: torch.Size, double: torch.Size, count: int) -> bool:
    """Whether a value's first dimension is the batch: it has ``count`` rows for one batch, and twice as many for
    two."""
    return bool(single) and single[0] == count and double[0] == 2 * count


def sweep(
    pg: Recorded,
    call: Call,
    nodes: Nodes,
    positions: Iterable[Any] | None,
    patch: Patch[Any],
    source: Mapping[str, Tensor] | None,
    metric: Metric,
    batch: int,
    dim: int,
    resume: bool,
) -> Sweep:
    """Runs a sweep."""
    paths = _in_order(pg, paths_of(pg, nodes))
    places = None if positions is None else [*positions]
    _check(paths, places, patch, source, batch)
    sweeping = Sweeping(pg, call, paths, patch, source, metric, dim)
    with sweeping.undo:
        return _measured(sweeping, places, batch, resume)


def _measured(sweeping: Sweeping, places: list[Any] | None, batch: int, resume: bool) -> Sweep:
    paths, dim = sweeping.nodes, sweeping.dim
    most, resume = sweeping.begin(batch, resume)
    experiments = [
        Experiment(node, position, path, place)
        for node, path in enumerate(paths)
        for position, place in enumerate([None] if places is None else places)
    ]
    alone: list[Experiment] = []
    together: list[Experiment] = []
    for experiment in experiments:
        is_alone = most == 1 or (dim == 0 and places is not None) or experiment.path in sweeping.apart
        (alone if is_alone else together).append(experiment)
    groups = [[each] for each in alone] + [together[at : at + most] for at in range(0, len(together), most)]
    shape = sweeping.baseline.shape
    values = sweeping.baseline.new_empty((len(paths), 1 if places is None else len(places), *shape))
    for group in groups:
        for experiment, value in zip(group, sweeping.measure(group, resume), strict=True):
            values[experiment.node, experiment.position] = value
    return Sweep(
        values=values[:, 0] if places is None else values,
        nodes=paths,
        positions=places,
        baseline=sweeping.baseline,
        runs=sweeping.runs,
        batch=most,
        is_resumed=resume,
        notes=sweeping.notes,
    )


def _in_order(pg: Recorded, paths: list[str]) -> list[str]:
    """In the order in which they are computed."""
    known = {path: number for number, path in enumerate(pg._recorder.graph().search("**", shape="..."))}
    return sorted((_canonical(pg, path) for path in paths), key=lambda path: known.get(path, len(known)))


def _canonical(pg: Recorded, path: str) -> str:
    return pg._recorder.graph().find("", path)


def _check(
    paths: list[str], places: list[Any] | None, patch: Patch[Any], source: Mapping[str, Tensor] | None, batch: int
) -> None:
    if batch < 1:
        raise ValueError(f"a batch has one experiment at least, not {batch}")
    if places is not None and source is None and getattr(patch, "slice", None) is not None:
        raise ValueError("positions choose where the patch acts, so that it takes no slice of its own")
    missing = [path for path in paths if source is not None and path not in source]
    if missing:
        raise ValueError(f"the source lacks {', '.join(missing)}")
