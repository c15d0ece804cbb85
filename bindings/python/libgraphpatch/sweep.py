"""One experiment for each node and position: its results as a labelled array."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from . import _html
from ._files import beside
from ._optional import needed


@dataclass(frozen=True, repr=False)
class Sweep:
    """What :meth:`PatchableGraph.sweep` measured.

    Attributes:
        values: The metric with the patch at each node and position, ``(nodes, positions, ...)``; ``(nodes, ...)``
            without positions. What follows is the shape of the metric.
        nodes: The paths.
        positions: The positions; None without.
        baseline: The metric without the patch.
        runs: How many times the module was called.
        batch: How many experiments were rows of one call at most.
        is_resumed: Whether what comes before the patched node was taken from the first run, not computed again.
        notes: Why the sweep was not done as asked, if so.
    """

    values: Tensor
    nodes: list[str]
    positions: list[Any] | None
    baseline: Tensor
    runs: int
    batch: int
    is_resumed: bool
    notes: list[str] = field(default_factory=list)

    @property
    def effect(self) -> Tensor:
        """The change by the patch: ``values - baseline``."""
        return self.values - self.baseline

    def rows(self) -> list[tuple[Any, ...]]:
        """Node, position if there are any, and the value, as a number or a list, for each experiment."""
        found: list[tuple[Any, ...]] = []
        for path, line in zip(self.nodes, self.values, strict=True):
            if self.positions is None:
                found.append((path, line.tolist()))
            else:
                found += [(path, place, value.tolist()) for place, value in zip(self.positions, line, strict=True)]
        return found

    def top(self, count: int = 10) -> list[tuple[Any, ...]]:
        """The experiments with the largest effect, of either sign, as :meth:`rows` has them; for a metric that is one
        number."""
        order = self._scalars().flatten().abs().argsort(descending=True)[:count].tolist()
        every = self.rows()
        return [every[number] for number in order]

    def to_csv(self, file: str | os.PathLike[str]) -> None:
        """Writes :meth:`rows`, under a line of titles. Raises OSError."""
        titles = ["node", "value"] if self.positions is None else ["node", "position", "value"]
        with beside(file) as part, part.open("w", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(titles)
            writer.writerows(self.rows())

    def plot(self, axes: Any = None) -> Any:
        """Draws :attr:`effect` as a heat map, nodes × positions, and returns the axes; for a metric that is one number.
        Needs the package matplotlib."""
        shown = self._scalars().cpu().float().numpy()
        if axes is None:
            axes = needed("matplotlib.pyplot", "matplotlib").subplots()[1]
        most = float(abs(shown).max()) or 1.0
        image = axes.imshow(shown, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
        axes.figure.colorbar(image, ax=axes)
        axes.set_yticks(range(len(self.nodes)), self.nodes)
        if self.positions is not None:
            axes.set_xticks(range(len(self.positions)), [str(position) for position in self.positions])
        return axes

    def _scalars(self) -> Tensor:
        """The effect, ``(nodes, positions)``."""
        if self.baseline.numel() != 1:
            raise ValueError(f"the metric is a tensor of {tuple(self.baseline.shape)}; this needs one number")
        return self.effect.reshape(len(self.nodes), -1)

    def __repr__(self) -> str:
        places = "" if self.positions is None else f" × {len(self.positions)} positions"
        resumed = ", resumed" if self.is_resumed else ""
        return f"Sweep({len(self.nodes)} nodes{places}, {self.runs} runs of up to {self.batch} experiments{resumed})"

    def _repr_html_(self) -> str:
        if self.baseline.numel() != 1:
            return f"<code>{repr(self)}</code>"
        columns = ["effect"] if self.positions is None else [str(position) for position in self.positions]
        return _html.heat(self.nodes, columns, self._scalars().tolist())
