"""Patches inside code of ``torch.compile`` ("taps"): they have the same effect as in the model that is not compiled. A
graph is compiled only once more for them. For patches that cannot be compiled, it runs operation by operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn

from libgraphpatch import AddPatch, CustomPatch, PatchableGraph, PatchError, ProbePatch, ReplacePatch, ZeroPatch, _taps
from libgraphpatch._replay import Replay
from test_compiled import FORMS, Model, compiled, ids, leaves, result_of, same


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Removes the delay before taps are compiled, and resets torch.compile."""
    monkeypatch.setattr(_taps, "PATIENCE", 0.0)
    torch.manual_seed(0)
    torch._dynamo.reset()
    with torch.no_grad():
        yield
    torch._dynamo.reset()


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[Replay]:
    """The list of graphs that were run operation by operation."""
    seen: list[Replay] = []
    run = Replay.run

    def counting(self: Replay) -> Any:
        if type(self) is Replay:
            seen.append(self)
        return run(self)

    monkeypatch.setattr(Replay, "run", counting)
    return seen


ADD = AddPatch(value=1.0)


class Counting:
    """A backend that counts what it compiles."""

    def __init__(self) -> None:
        self.graphs: list[str] = []

    def __call__(self, graph: torch.fx.GraphModule, examples: Any) -> Any:
        self.graphs.append(graph.code)
        return graph.forward


@pytest.mark.parametrize("name", ["whole", "any_size", "through_aot", "part", "broken", "function"])
def test_patches_at_every_node_are_those_of_the_model(name: str, replays: list[Replay]) -> None:
    model, made, x = FORMS[name]()
    eager, inside = PatchableGraph(model, x), PatchableGraph(made, x)
    paths = list(leaves(eager.graph))
    bare, by_taps = result_of(inside, x), 0
    for path in paths:
        outcomes = []
        for pg in (eager, inside):
            replays.clear()
            probe, after = ProbePatch[Tensor](), ProbePatch[Tensor]()
            with pg.patch({path: [probe, ZeroPatch(slice=(..., 0)), after]}, on_missing="raise") as block:
                try:
                    found: Any = result_of(pg, x)
                except RuntimeError as error:  # a patch that libtorch refuses must be refused in both
                    found = str(error).splitlines()[0]
            outcomes.append((found, probe.activation, after.activation, block.counts))
        by_taps += not replays
        assert all(map(same_or_equal, *outcomes)), path
    assert same(result_of(inside, x), bare)
    assert by_taps > len(paths) // 4


def same_or_equal(one: Any, other: Any) -> bool:
    return one == other if isinstance(one, (dict, str)) or one is None else same(one, other)


def test_switching_and_other_values_compile_nothing(replays: list[Replay]) -> None:
    model, x, backend = Model().eval(), ids(), Counting()
    eager, pg = PatchableGraph(model, x), PatchableGraph(compiled(model, backend), x)
    patch = AddPatch(value=1.0)
    patches = {"layers_0.out.output": patch, "layers_1.softmax": ZeroPatch(slice=(..., 0))}
    bare = pg(x)
    with eager.patch(patches), pg.patch(patches):
        assert same(pg(x), eager(x))
        graphs = list(backend.graphs)
        assert "graphpatch.tap" in graphs[-1] and not any("graphpatch" in graph for graph in graphs[:-1])
        replays.clear()
        for value in (2.0, -3.0, torch.randn(8)):
            patch.value = value
            assert same(pg(x), eager(x)) and not same(pg(x), bare)
    assert same(pg(x), bare)
    for path in patches:
        with eager.patch({path: patches[path]}), pg.patch({path: patches[path]}):
            assert same(pg(x), eager(x))
    assert backend.graphs == graphs and not replays


def test_a_further_place_compiles_once_more() -> None:
    model, x, backend = Model().eval(), ids(), Counting()
    pg, eager = PatchableGraph(compiled(model, backend), x), PatchableGraph(model, x)
    for _ in range(2):
        for path in ("layers_0.softmax", "layers_1.softmax", "embed.embedding", "layers_1.out.linear", "layers_0.div"):
            with pg.patch({path: ZeroPatch(slice=(..., 0))}), eager.patch({path: ZeroPatch(slice=(..., 0))}):
                assert same(pg(x), eager(x))
    assert sum("graphpatch" in graph for graph in backend.graphs) == 3


def test_inductors_code_is_that_without_taps_where_nothing_changes(replays: list[Replay]) -> None:
    model, x = Model().eval(), ids()
    made = compiled(model, "inductor", fullgraph=True)
    pg, eager = PatchableGraph(made, x), PatchableGraph(model, x)
    bare = made(x)
    replays.clear()
    places = ["layers_0.softmax", "layers_1.out.output", "layers_1.norm.layer_norm"]
    probes = {path: ProbePatch[Tensor]() for path in places}
    with pg.patch(probes):
        assert all(same(pg(x), bare) for _ in range(3))
        assert not replays
    for path, probe in probes.items():
        with eager.patch({path: (wanted := ProbePatch[Tensor]())}):
            eager(x)
        torch.testing.assert_close(probe.activation, wanted.activation)
        for patch in (ZeroPatch(slice=(..., 0)), AddPatch(value=0.5), ReplacePatch(value=wanted.activation.flip(0))):
            with eager.patch({path: patch}), pg.patch({path: patch}):
                torch.testing.assert_close(pg(x), eager(x))
    assert not replays and same(pg(x), bare) and not pg.notes


def test_caches_of_compiled_code_tell_taps_apart() -> None:
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        torch._dynamo.reset()
        model, x = Model().eval(), ids()
        pg = PatchableGraph(compiled(model, "inductor"), x)
        found = [pg(x)]
        for path in ("layers_0.out.linear", "layers_1.out.linear"):
            with pg.patch({path: ZeroPatch()}):
                found.append(pg(x))
        results.append([*found, pg(x)])
    assert same(*results)
    bare, first, second, again = results[0]
    assert same(bare, again) and not same(bare, first) and not same(bare, second) and not same(first, second)


def test_other_sizes(replays: list[Replay]) -> None:
    model = Model().eval()
    pg, eager = PatchableGraph(compiled(model, dynamic=True), ids()), PatchableGraph(model, ids())
    patches = {"layers_0.softmax": ZeroPatch(slice=(..., 0)), "layers_1.matmul": AddPatch(value=1.0)}
    replays.clear()
    with pg.patch(patches), eager.patch(patches):
        for length in (5, 7, 3, 7, 5):
            x = torch.randint(0, 11, (2, length))
            assert same(pg(x), eager(x))
    assert not replays


class Writes(nn.Module):
    """Writes into views, operands and buffers, before and after their values are used."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        half = y[:, :2]
        turned = y.t()
        half.mul_(2)
        self.seen += 1
        z = torch.empty(3, 4)
        z[:] = y.relu()
        w = torch.nn.functional.relu(z - 0.5, inplace=True)
        w += turned.t().exp() + self.seen.sin()
        return w.contiguous() + half.sum() + z.view(4, 3).t().sum()


class Numbered(nn.Module):
    """Operations of the same name before, after and between parts of compiled code."""

    def __init__(self, compile: Callable[[Any], Any]) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.wave = compile(lambda x: torch.sin(self.inner(x)) + torch.sin(x))
        self.break_ = compile(self.two)

    def two(self, x: Tensor) -> Tensor:
        x = self.inner(x).sin()
        torch._dynamo.graph_break()
        return (x.sin() + 1).sin()

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.break_(torch.sin(self.wave(x) + 1)).sin() + self.wave(x))


@pytest.mark.parametrize("make", [lambda compile: compile(Writes()), Numbered], ids=["writes", "numbered"])
def test_models_that_write_and_models_that_are_compiled_in_parts(make: Callable[..., nn.Module]) -> None:
    x = torch.randn(3, 4)
    results: dict[str, list[Any]] = {}
    for compile in (lambda it: it, compiled):
        torch.manual_seed(0)
        pg = PatchableGraph(make(compile), x)
        bare = pg(x)
        for path in leaves(pg.graph):
            for number in range(2):
                patches = {"add": ZeroPatch(slice=0), path: AddPatch(value=2.0, slice=0)} if number else {path: ADD}
                with pg.patch(patches, on_missing="ignore") as block:
                    try:
                        found: list[Any] = [pg(x).nan_to_num(), pg(x).nan_to_num()]
                    except RuntimeError:
                        found = ["refused"]
                results.setdefault(f"{path} {number}", []).append((found, block.counts))
        results.setdefault("bare", []).append(([bare], {}))
    assert len(results) > 10
    for path, (one, other) in results.items():
        assert same(one[0], other[0]) and one[1] == other[1], path


def test_gradients_functions_and_refusals(replays: list[Replay]) -> None:
    model, x = Model().eval(), ids()
    pg, eager = PatchableGraph(compiled(model), x), PatchableGraph(model, x)
    path = "layers_0.out.output"
    replays.clear()
    with pg.patch({path: ZeroPatch()}):
        pg(x), pg(x)
    assert not replays
    with pg.patch({path: AddPatch(value=torch.ones(7))}), pytest.raises(PatchError, match=path):
        pg(x)
    with pg.patch({path: AddPatch(value=torch.ones(7))}, on_error="skip") as block:
        assert same(pg(x), eager(x))
    assert [counts.failed for counts in block.counts[path]] == [1] and not replays
    flipped = CustomPatch(custom_op=lambda value: value.flip(0))
    with pg.patch({path: flipped}), eager.patch({path: flipped}):
        assert same(pg(x), eager(x))
    gradients = []
    with torch.enable_grad():
        for one in (pg, eager):
            model.zero_grad()
            with one.patch({path: ZeroPatch(slice=(..., 0))}):
                one(x).square().sum().backward()
            gradients.append([parameter.grad for parameter in model.parameters()])
    assert same(*gradients)


def test_runs_that_a_patch_is_limited_to() -> None:
    model, x = Model().eval(), ids()
    pg, eager = PatchableGraph(compiled(model), x), PatchableGraph(model, x)
    results = []
    for one in (pg, eager):
        with one.patch({"layers_0.softmax": ZeroPatch()}, runs="1..2"), one.patch({"layers_1.softmax": ZeroPatch()}):
            results.append([one(x) for _ in range(3)])
    assert same(*results) and not same(results[0][0], results[0][1])


def test_the_operator_is_quiet_outside_of_runs() -> None:
    x = torch.ones(3)
    torch.ops.graphpatch.tap(x, "layers_0.softmax")
    assert same(x, torch.ones(3))


class InPlace(nn.Module):
    """Operations that return the operand that they have written into, and a norm that only reads its statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm(self.conv(x)))
        y += y.flip(0)
        return y.mul_(2).sum(-1)


def test_written_operands_have_taps(replays: list[Replay]) -> None:
    model, x = InPlace().eval(), torch.randn(2, 3, 6)
    pg, eager = PatchableGraph(compiled(model), x), PatchableGraph(model, x)
    bare = eager(x)
    pg(x)
    replays.clear()
    for path in ("conv.conv1d", "norm.batch_norm", "relu.relu_", "add_", "mul_", "sum_1"):
        for patch in (ZeroPatch(slice=0), AddPatch(value=1.0, slice=(..., 0))):
            kept = [ProbePatch[Tensor]() for _ in range(2)]
            with pg.patch({path: [kept[0], patch]}, on_missing="raise"):
                found = pg(x)
            with eager.patch({path: [kept[1], patch]}, on_missing="raise"):
                assert same(found, eager(x)) and not same(found, bare), path
            assert same(kept[0].activation, kept[1].activation), path
    assert not replays and same(pg(x), bare)
