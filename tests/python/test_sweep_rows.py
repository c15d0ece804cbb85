"""Rows that no patch of a sweep reaches are not computed again; the results are those of whole runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, CustomPatch, PatchableGraph, ReplacePatch, SkipPatch, ZeroPatch

LENGTH, WIDTH = 8, 16


class Mixing(nn.Module):
    """Adds to each position the mean of the earlier ones, or of all."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal, self.before, self.after = causal, nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.before(x)
        mean = hidden.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None] if self.causal else hidden.mean(1, True)
        return x + self.after(torch.tanh(mean) + hidden)


class Tower(nn.Module):
    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Mixing(causal) for _ in range(3))
        self.head = nn.Linear(WIDTH, 5)
        self.tied = self.head.weight

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


@pytest.fixture(params=[True, False], ids=["causal", "not causal"])
def pg(request: pytest.FixtureRequest) -> Iterator[PatchableGraph]:
    torch.manual_seed(3)
    yield PatchableGraph(Tower(request.param).eval(), inputs())


def inputs(rows: int = 2) -> Tensor:
    return torch.randn(rows, LENGTH, WIDTH, generator=torch.Generator().manual_seed(5))


def metric(output: Tensor) -> Tensor:
    return output.square().sum((1, 2))


def one_by_one(pg: PatchableGraph, nodes: list[str], patch: Any = ZeroPatch) -> Tensor:
    values = []
    for node in nodes:
        for place in range(LENGTH):
            with torch.no_grad(), pg.patch({node: patch(slice=(slice(None), place))}):
                values.append(metric(pg(inputs())))
    return torch.stack(values).reshape(len(nodes), LENGTH, -1)


def swept(pg: PatchableGraph, nodes: str) -> None:
    sweep = pg.sweep(nodes, inputs(), positions=range(LENGTH), metric=metric)
    assert sweep.batch == 32 and not sweep.notes and sweep.is_resumed
    assert torch.allclose(sweep.values, one_by_one(pg, sweep.nodes), rtol=1e-5, atol=1e-5)
    assert (sweep.effect != 0).any(-1).any(-1).all()


NODES = ["layers_*.output", "layers_*.before.output", "layers_*.after.input", "{layers_1.after,head}.{input,output}"]


@pytest.mark.parametrize("nodes", NODES)
def test_results_are_those_of_single_runs(pg: PatchableGraph, nodes: str) -> None:
    swept(pg, nodes)
    assert not any("forward" in vars(module) for module in pg.module.modules())


def test_operations_inside_linear_modules(pg: PatchableGraph) -> None:
    swept(pg, "{layers_*.*,head}.linear")


def test_patched_parameters(pg: PatchableGraph) -> None:
    sweep = pg.sweep(["layers_1.before.weight", "head.weight", "head.output"], inputs(), metric=metric)
    for path, value in zip(sweep.nodes, sweep.values, strict=True):
        with torch.no_grad(), pg.patch({path: ZeroPatch()}):
            assert torch.allclose(value, metric(pg(inputs())), rtol=1e-5, atol=1e-5)


AROUND = {
    "an operation": {"layers_1.after.linear": AddPatch(value=1.0, slice=(slice(None), 2))},
    "a weight": {"head.weight": ReplacePatch(value=0.5, slice=0)},
    "an input": {"layers_2.before.input": CustomPatch(custom_op=lambda value: value * 2)},
    "an output": {"layers_2.before.output": AddPatch(value=1.0)},
    "a skipped call": {"layers_2.before": SkipPatch(value="input")},
    "a skipped call that has ended": {"layers_0.after": SkipPatch(value="input")},
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
def test_patches_around_act_on_all_rows(pg: PatchableGraph, around: dict[str, Any]) -> None:
    bare = pg.sweep("layers_*.output", inputs(), positions=range(LENGTH), metric=metric)
    with pg.patch(around):
        swept(pg, "layers_*.output")
        assert not torch.allclose(bare.baseline, pg.sweep("head.output", inputs(), metric=metric).baseline)


def test_a_skipped_call_around_the_sweep_stays_skipped(pg: PatchableGraph) -> None:
    with pg.patch({"layers_0": SkipPatch(value="x")}):
        swept(pg, "layers_*.output")


def test_a_value_of_other_bits_is_another_value() -> None:
    pg = PatchableGraph(nn.Sequential(nn.Identity(), nn.Linear(4, 1, bias=False), nn.Identity()), torch.zeros(1, 3, 4))
    with torch.no_grad():
        pg.module[1].weight.fill_(1)
    for value in (-0.0, float("nan"), 1.0):
        sweep = pg.sweep(
            "sub_0.output",
            torch.zeros(1, 3, 4),
            positions=range(3),
            patch=ReplacePatch(value=value),
            metric=lambda output: output[0, 1, 0].reciprocal(),
        )
        with torch.no_grad(), pg.patch({"sub_0.output": ReplacePatch(value=value, slice=(slice(None), 1))}):
            expected = pg(torch.zeros(1, 3, 4))[0, 1, 0].reciprocal()
        assert torch.equal(sweep.values[0, 1].nan_to_num(7), expected.nan_to_num(7))


def test_unchanged_rows_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    pg = PatchableGraph(Tower(True).eval(), inputs())
    computed: list[int] = []
    linear = nn.functional.linear

    def counted(x: Tensor, *others: Any) -> Tensor:
        computed.append(x.shape[:-1].numel())
        return linear(x, *others)

    monkeypatch.setattr(nn.functional, "linear", counted)
    rows = {}
    for resume in (False, True):
        computed.clear()
        pg.sweep("layers_0.output", inputs(), positions=range(LENGTH), metric=metric, resume=resume)
        rows[resume] = sum(computed)
    # The run without the patch, the one without modules before it, the one that tries two batches, the sweep's own.
    whole = 7 * (2 * LENGTH) * (1 + 2 + LENGTH)
    assert rows[False] == whole
    # Of the last two only the modules behind the patch, and there: one position each, then the later ones.
    later = sum(2 * (LENGTH - place) for place in range(LENGTH))
    assert rows[True] == 7 * 2 * LENGTH + 5 * 2 * LENGTH + 2 * LENGTH + 4 * later
