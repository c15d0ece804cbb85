"""Classes whose ``__call__`` calls torch's by name, as most layers of transformers do, under torch.compile: the graph
does not end there, and is compiled as often as without this package."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn

from libgraphpatch import PatchableGraph, ProbePatch, ZeroPatch, _taps
from transformers_models import build

X = torch.linspace(-1, 1, 8).reshape(2, 4)
IDS = torch.tensor([[5, 17, 3, 42]])


class Base(nn.Module):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


class BySuper(Base):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor, *, times: int = 1) -> Tensor:
        out: Tensor = self.inner(x) * times
        return out


class ByName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def __call__(self, x: Tensor) -> Any:
        return nn.Module.__call__(self, x)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x).relu()
        return out


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = BySuper(), ByName(), BySuper()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c(self.b(self.a(x, times=2)), times=3)
        return out


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with torch.no_grad():
        yield
    torch._dynamo.reset()


def compiled_graphs() -> tuple[int, int]:
    """How many graphs torch.compile has made, and how many kinds of graph breaks it has met."""
    counters = torch._dynamo.utils.counters
    return counters["stats"]["unique_graphs"], len(counters["graph_break"])


def test_one_graph_for_any_number_of_calls() -> None:
    model, eager = Model(), PatchableGraph(Model(), X)
    pg = PatchableGraph(torch.compile(model, backend="aot_eager", fullgraph=True), X)
    assert repr(pg.graph) == repr(eager.graph)
    for path in ("a.inner.linear", "b.relu", "c.output"):
        results = []
        for each in (eager, pg):
            with each.patch({path: ZeroPatch(slice=(..., 0))}, on_missing="raise"):
                results.append(each(X))
        assert torch.equal(*results), path
    for _ in range(12):  # more than torch.compile's limit of recompilations
        assert torch.equal(pg(X), Model()(X))
    assert compiled_graphs() == (1, 0)


def test_a_model_of_transformers_is_one_graph_with_the_names_of_eager_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_taps, "PATIENCE", 0.0)
    model = build("gpt2", "sdpa")
    eager = PatchableGraph(model, IDS, use_cache=False)
    pg = PatchableGraph(torch.compile(model, backend="aot_eager"), IDS, use_cache=False)
    assert repr(pg.graph) == repr(eager.graph)
    path = "transformer.h_1.attn.c_attn.addmm"
    for _ in range(3):
        probes = []
        for each in (eager, pg):
            probe = ProbePatch[Tensor]()
            with each.patch({"transformer.h_0.mlp.act.tanh": ZeroPatch(), path: probe}, on_missing="raise"):
                each(IDS, use_cache=False)
            probes.append(probe.activation)
        assert torch.equal(*probes)
    assert compiled_graphs() == (1, 0) and not pg.notes


def test_values_inside_vmap_are_patched_as_in_eager_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_taps, "PATIENCE", 0.0)

    class Mapped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            rows = torch.vmap(lambda row: row.exp() + 1)(x.sin())
            return rows.cos()

    eager = PatchableGraph(Mapped(), X)
    pg = PatchableGraph(torch.compile(Mapped(), backend="aot_eager"), X)
    for path in ("sin", "exp", "add", "cos"):
        results = []
        for each in (eager, pg):
            with each.patch({path: ZeroPatch(slice=0)}, on_missing="raise"):
                results.append(each(X))
        assert torch.equal(*results), path
    assert not pg.notes
