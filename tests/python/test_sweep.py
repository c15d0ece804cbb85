"""`pg.sweep` against one plain run with hooks for each node and position."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, CustomPatch, PatchableGraph, PatchError, Sweep, ZeroPatch
from transformers_models import build

CLEAN, CORRUPTED = torch.tensor([[5, 17, 3, 42, 8, 1]]), torch.tensor([[5, 17, 9, 42, 7, 2]])


def metric(output: Any) -> Tensor:
    return output.logits[:, -1, 7].sum()


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def pg(request: pytest.FixtureRequest) -> PatchableGraph:
    return PatchableGraph(build(request.param, "eager"), CLEAN)


def blocks(model: nn.Module) -> nn.ModuleList:
    return model.transformer.h if hasattr(model, "transformer") else model.model.layers


def node(pg: PatchableGraph, part: str = "") -> str:
    base = "transformer.h_*" if hasattr(pg.module, "transformer") else "model.layers_*"
    path = f"{base}{part}.output"
    return path if pg.graph.find(path, shape="...") else f"{path}|sub_0"


def by_hand(model: nn.Module, inputs: Tensor, modules: list[nn.Module], places: list[Any], change: Any) -> Tensor:
    """A run with a forward hook for each module and position: ``change(number, place, value)`` writes into a copy."""
    values = torch.empty(len(modules), len(places))
    for number, module in enumerate(modules):
        for column, place in enumerate(places):

            def hook(_m: Any, _i: Any, output: Any, number: int = number, place: Any = place) -> Any:
                value = (output if isinstance(output, Tensor) else output[0]).clone()
                change(number, place, value)
                return value if isinstance(output, Tensor) else (value, *output[1:])

            with module.register_forward_hook(hook), torch.no_grad():
                values[number, column] = metric(model(inputs))
    return values


def outputs(model: nn.Module, inputs: Tensor, modules: list[nn.Module]) -> list[Tensor]:
    kept: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _m, _i, out: kept.append(out if isinstance(out, Tensor) else out[0]))
        for module in modules
    ]
    with torch.no_grad():
        model(inputs)
    for hook in hooks:
        hook.remove()
    return kept


@pytest.fixture(scope="module")
def trace(pg: PatchableGraph) -> Tensor:
    """A causal trace by hand: layers × positions."""
    clean = outputs(pg.module, CLEAN, [*blocks(pg.module)])

    def restore(number: int, place: int, value: Tensor) -> None:
        value[:, place] = clean[number][:, place]

    return by_hand(pg.module, CORRUPTED, [*blocks(pg.module)], [*range(6)], restore)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("batch", [1, 4, 32])
def test_a_causal_trace(pg: PatchableGraph, trace: Tensor, batch: int, resume: bool) -> None:
    sweep = pg.sweep(
        node(pg),
        CORRUPTED,
        positions=range(6),
        source=CLEAN,
        metric=metric,
        batch=batch,
        resume=resume,
        use_cache=False,
    )
    assert sweep.values.shape == (2, 6) and sweep.positions == [*range(6)] and not sweep.notes
    assert torch.allclose(sweep.values, trace, atol=1e-5, rtol=1e-5)
    if batch == 1:
        assert torch.equal(sweep.values, trace)
    with torch.no_grad():
        assert torch.equal(sweep.baseline, metric(pg.module(CORRUPTED)))
    assert sweep.is_resumed == resume and sweep.batch == batch
    assert sweep.runs == 1 + resume + (batch > 1) + {1: 12, 4: 3, 32: 1}[batch]
    assert not any("forward" in vars(module) for module in pg.module.modules())


def test_inner_nodes_whole_values_and_other_patches(pg: PatchableGraph) -> None:
    mlps = [block.mlp for block in blocks(pg.module)]
    changes: list[tuple[Any, Callable[[int, Any, Tensor], Any]]] = [
        (None, lambda _n, _p, value: value.zero_()),
        (AddPatch(value=2.0), lambda _n, _p, value: value.add_(2.0)),
        (AddPatch(value=2.0, slice=(..., slice(0, 5))), lambda _n, _p, value: value[..., :5].add_(2.0)),
        (ZeroPatch(slice=(slice(None), 1)), lambda _n, _p, value: value[:, 1].zero_()),
        (CustomPatch(custom_op=lambda value: value * 3), lambda _n, _p, value: value.mul_(3)),
    ]
    for patch, change in changes:
        sweep = pg.sweep(node(pg, ".mlp"), CLEAN, metric=metric, patch=patch)
        expected = by_hand(pg.module, CLEAN, mlps, [None], change)[:, 0]
        assert sweep.values.shape == (2,) and torch.allclose(sweep.values, expected, atol=1e-5, rtol=1e-5)
        assert sweep.runs == 4 and sweep.is_resumed and sweep.positions is None


def test_batches_of_several_rows_and_metrics_of_several_numbers(pg: PatchableGraph) -> None:
    ids = torch.cat([CLEAN, CORRUPTED])
    last = lambda output: output.logits[:, -1, :3]
    sweep = pg.sweep(node(pg), ids, positions=[slice(0, 2), [1, 5], -1], metric=last, batch=2)
    assert sweep.values.shape == (2, 3, 2, 3) and sweep.baseline.shape == (2, 3)
    for number, place in enumerate([slice(0, 2), [1, 5], -1]):
        for layer in range(2):
            path = sweep.nodes[layer]
            with torch.no_grad(), pg.patch({path: ZeroPatch(slice=(slice(None), place))}):
                assert torch.allclose(sweep.values[layer, number], last(pg(ids)), atol=1e-5)
    with pytest.raises(ValueError, match="needs one number"):
        sweep.plot()


def test_patches_around_hold_in_all_runs(pg: PatchableGraph) -> None:
    embedding = "transformer.wte.output" if hasattr(pg.module, "transformer") else "model.embed_tokens.output"
    noise = {embedding: AddPatch(value=torch.randn(32), slice=(slice(None), [1, 2]))}
    values = pg.cache(CLEAN, node(pg))
    with pg.patch(noise):
        sweep = pg.sweep(node(pg), CLEAN, positions=range(6), source=values, metric=metric)
        with torch.no_grad():
            assert torch.equal(sweep.baseline, metric(pg(CLEAN)))
            for layer, path in enumerate(sweep.nodes):
                swapped = pg.swap(CLEAN, CLEAN, path)
                assert torch.allclose(metric(swapped), sweep.baseline, atol=1e-5)
                with pg.patch(
                    {path: CustomPatch(custom_op=lambda _, path=path: values[path][:, 3], slice=(slice(None), 3))}
                ):
                    assert torch.allclose(sweep.values[layer, 3], metric(pg(CLEAN)), atol=1e-5)
    assert sweep.is_resumed and sweep.batch == 32 and not sweep.notes


class Rows(nn.Module):
    """A model in which the rows of a batch influence each other."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.one(x)
        return self.two(hidden - hidden.mean(0))


class Counting(nn.Module):
    """A hook of the user's stores a value that a later part of the model uses."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.seen = torch.zeros(())
        self.one.register_forward_hook(self.see)

    def see(self, _m: nn.Module, _i: Any, output: Tensor) -> None:
        self.seen = output.mean()

    def forward(self, x: Tensor) -> Tensor:
        self.seen = torch.zeros(())
        return self.two(self.one(x)) + self.seen


class Leaving(nn.Module):
    """One part passes a value to the next part in another way than by its result."""

    def __init__(self) -> None:
        super().__init__()
        self.state: list[Tensor] = []
        self.one, self.two = Part(self.state), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.state.clear()
        return self.two(self.one(x)) + sum(self.state)


class Part(nn.Module):
    def __init__(self, state: list[Tensor]) -> None:
        super().__init__()
        self.inner, self.state = nn.Linear(4, 4), state

    def forward(self, x: Tensor) -> Tensor:
        self.state.append(x.sum(-1, keepdim=True))
        return self.inner(x)


def total(output: Tensor) -> Tensor:
    return output.sum()


def test_what_does_not_hold_for_a_module_is_left_out_and_said() -> None:
    x = torch.randn(3, 4)
    rows = PatchableGraph(Rows(), x)
    sweep = rows.sweep(["one.output", "two.output"], x, metric=lambda output: output.square().sum(), positions=range(4))
    assert sweep.batch == 1 and "rows of a batch influence" in sweep.notes[0] and sweep.values.shape == (2, 4)
    leaving = PatchableGraph(Leaving(), x)
    sweep = leaving.sweep("two.output", x, metric=total)
    assert not sweep.is_resumed and "begins later gives another result" in sweep.notes[0]
    counting = PatchableGraph(Counting(), x)  # `one` may be skipped: its hooks are called all the same
    assert counting.sweep("two.output", x, metric=total).is_resumed
    dropout = PatchableGraph(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), x)
    sweep = dropout.sweep("sub_0.output", x, metric=total)
    assert sweep.batch == 1 and "random" in sweep.notes[-1]


def test_nodes_without_a_batch_have_runs_of_their_own() -> None:
    x = torch.randn(3, 4)
    pg = PatchableGraph(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)), x)
    sweep = pg.sweep("sub_*.{weight,output}", x, metric=total)
    assert "no batch: sub_0.weight, sub_1.weight" in sweep.notes[0] and sweep.batch == 32
    for path, value in zip(sweep.nodes, sweep.values, strict=True):
        with torch.no_grad(), pg.patch({path: ZeroPatch()}):
            assert torch.allclose(value, pg(x).sum(), atol=1e-6)


def test_what_is_refused(pg: PatchableGraph) -> None:
    with pytest.raises(KeyError, match="matches no tensor"):
        pg.sweep("nothing_*", CLEAN, metric=metric)
    with pytest.raises(ValueError, match="no slice of its own"):
        pg.sweep(node(pg), CLEAN, positions=[0], patch=ZeroPatch(slice=0), metric=metric)
    with pytest.raises(ValueError, match="not 0"):
        pg.sweep(node(pg), CLEAN, metric=metric, batch=0)
    with pytest.raises(IndexError):
        pg.sweep(node(pg), CLEAN, positions=[99], metric=metric, batch=1)
    with pytest.raises(PatchError):
        pg.sweep(node(pg), CLEAN, source=torch.tensor([[1, 2]]), metric=metric)


def test_what_a_sweep_shows(pg: PatchableGraph, tmp_path: Path) -> None:
    sweep = pg.sweep(node(pg), CLEAN, positions=[0, 5], metric=metric)
    assert isinstance(sweep, Sweep) and torch.equal(sweep.effect, sweep.values - sweep.baseline)
    largest = sweep.effect.abs().max().item()
    best = sweep.top(1)[0]
    row, column = sweep.nodes.index(best[0]), sweep.positions.index(best[1])
    assert sweep.effect[row, column].abs().item() == largest and best[2] == sweep.values[row, column].item()
    sweep.to_csv(tmp_path / "sweep.csv")
    with (tmp_path / "sweep.csv").open() as file:
        lines = [*csv.reader(file)]
    assert (
        lines[0] == ["node", "position", "value"]
        and len(lines) == 5
        and float(lines[1][2]) == sweep.values[0, 0].item()
    )
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    axes = sweep.plot()
    assert torch.equal(torch.tensor(axes.images[0].get_array()), sweep.effect)
    assert [label.get_text() for label in axes.get_yticklabels()] == sweep.nodes
    assert sweep.nodes[0] in sweep._repr_html_() and "2 nodes × 2 positions" in repr(sweep)
