"""Values of one run put into another: interchange, attribution and path patching."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from ._call import Call
from ._recorded import Recorded
from ._run_kept import Metric, Nodes, keep, paths_of
from .cache import ActivationCache
from .patches import Patch, ReplacePatch
from .probes import ProbePatch

# A position that is the same in both runs, or a pair: the position in the clean run, and the one in the corrupted run.
Position = int | tuple[int, int]


def swap(pg: Recorded, clean: Call, corrupted: Call, nodes: Nodes, positions: Iterable[Position] | None) -> Any:
    """What the corrupted run returns with the clean run's values."""
    values = keep(pg, clean.args, clean.kwargs, paths_of(pg, nodes), None, None)
    places = None if positions is None else [(at, at) if isinstance(at, int) else at for at in positions]
    with pg.patch({path: _patches(value, places) for path, value in values.items()}):
        return pg(*corrupted.args, **corrupted.kwargs)


def _patches(value: Tensor, places: list[tuple[int, int]] | None) -> list[Patch[Any]]:
    if places is None:
        return [ReplacePatch(value=value)]
    return [ReplacePatch(value=value[:, source], slice=(slice(None), target)) for source, target in places]


def attribute(pg: Recorded, clean: Call, corrupted: Call, nodes: Nodes, metric: Metric) -> ActivationCache:
    """The estimated effects of :func:`swap`, element by element."""
    wanted = paths_of(pg, nodes)
    there = keep(pg, clean.args, clean.kwargs, wanted, None, None)
    here = keep(pg, corrupted.args, corrupted.kwargs, wanted, metric, None)
    unlike = [path for path in here.grads if path not in there or there[path].shape != here[path].shape]
    if unlike:
        raise ValueError(f"the two runs have other values, or values of other shapes, at {', '.join(unlike)}")
    effects = {path: (there[path] - here[path]) * gradient for path, gradient in here.grads.items()}
    return ActivationCache(effects, output=here.output, grads=here.grads)


def path_patch(pg: Recorded, clean: Call, corrupted: Call, senders: Nodes, receivers: Nodes, freeze: Nodes) -> Any:
    """What the corrupted run returns when the receivers see the effect of the senders' clean values, except for effects
    that go through frozen nodes."""
    from_, to = paths_of(pg, senders), paths_of(pg, receivers)
    held = [path for path in ([] if freeze is None else paths_of(pg, freeze)) if path not in (*from_, *to)]
    sent = keep(pg, clean.args, clean.kwargs, from_, None, None)
    frozen: Mapping[str, Tensor] = keep(pg, corrupted.args, corrupted.kwargs, held, None, None) if held else {}
    probes: dict[str, ProbePatch[Tensor]] = {path: ProbePatch() for path in to}
    values = {path: ReplacePatch(value=value) for path, value in {**frozen, **sent}.items()}
    with pg.patch({**values, **probes}):
        pg(*corrupted.args, **corrupted.kwargs)
    received = {
        path: ReplacePatch(value=probe.activation) for path, probe in probes.items() if probe.activation is not None
    }
    with pg.patch(received):
        return pg(*corrupted.args, **corrupted.kwargs)
