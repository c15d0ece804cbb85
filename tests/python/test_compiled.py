"""Inside what ``torch.compile`` has compiled: the names, values, patches and gradients of the model as it is without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn

from libgraphpatch import AddPatch, CustomPatch, NodePath, PatchableGraph, ProbePatch, ReplacePatch, ZeroPatch
from nets import Calls, Net


class Attention(nn.Module):
    """Views, tuples, a mask, keyword arguments, and a dict as result."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor, *, heads: int = 2, mask: Tensor | None = None) -> dict[str, Any]:
        batch, length, width = x.shape
        query, key, value = self.qkv(self.norm(x)).chunk(3, -1)
        split = [part.view(batch, length, heads, width // heads).transpose(1, 2) for part in (query, key, value)]
        scores = split[0] @ split[1].transpose(-1, -2) / (width // heads) ** 0.5
        if mask is not None:
            scores = scores.masked_fill(mask, float("-inf"))
        weights = scores.softmax(-1)
        mixed = (weights @ split[2]).transpose(1, 2).reshape(batch, length, width)
        return {"hidden": self.out(mixed), "weights": (weights, heads)}


class Writer(nn.Module):
    """Writes into a buffer, and draws random numbers."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.drop = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return self.drop(self.norm(self.linear(x))) + self.seen


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layers = nn.Embedding(11, 8), nn.ModuleList([Attention(), Attention()])
        self.head = nn.Linear(8, 11)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        mask = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).triu(1)
        for layer in self.layers:
            x = x + layer(x, mask=mask)["hidden"]
        return self.head(x).log_softmax(-1)


class Broken(nn.Module):
    """A graph break between two operations, and a module in each part."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x) + 1
        torch._dynamo.graph_break()
        x = self.second(x) + 2
        return x + 3


class Around(nn.Module):
    """Calls a compiled function between modules of its own."""

    def __init__(self, compile: Callable[[Any], Any]) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
        self.wave = compile(lambda x: torch.sin(self.inner(x)) * 2 + torch.cos(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.wave(x)) - 1


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    torch.manual_seed(0)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def same(a: Any, b: Any) -> bool:
    """Whether two results, or lists of such, are the same bit for bit."""
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return type(a) is type(b) and bool(a == b)
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


def compiled(module: Any, backend: Any = "eager", **options: Any) -> Any:
    return torch.compile(module, backend=backend, **options)


def ids() -> Tensor:
    return torch.randint(0, 11, (2, 5))


# By name: a function that makes a model, its compiled form, and an input.
FORMS: dict[str, Callable[[], tuple[nn.Module, nn.Module, Tensor]]] = {}


def form(make: Callable[[], tuple[nn.Module, nn.Module, Tensor]]) -> Callable[[], tuple[nn.Module, nn.Module, Tensor]]:
    FORMS[make.__name__.strip("_")] = make
    return make


@form
def whole() -> tuple[nn.Module, nn.Module, Tensor]:
    model = Model().eval()
    return model, compiled(model, fullgraph=True), ids()


@form
def any_size() -> tuple[nn.Module, nn.Module, Tensor]:
    model = Model().eval()
    return model, compiled(model, fullgraph=True, dynamic=True), ids()


@form
def through_aot() -> tuple[nn.Module, nn.Module, Tensor]:
    net = Net()
    return net, compiled(net, "aot_eager", fullgraph=True), torch.randn(3, 4)


@form
def part() -> tuple[nn.Module, nn.Module, Tensor]:
    net = Net()
    return Calls(net), Calls(compiled(net)), torch.randn(3, 4)


@form
def method() -> tuple[nn.Module, nn.Module, Tensor]:
    net, twin = Net(), Net()
    twin.load_state_dict(net.state_dict())
    twin.compile(backend="eager")
    return Calls(net), Calls(twin), torch.randn(3, 4)


@form
def method_of_the_root() -> tuple[nn.Module, nn.Module, Tensor]:
    net, twin = Net(), Net()
    twin.load_state_dict(net.state_dict())
    twin.compile(backend="eager")
    return net, twin, torch.randn(3, 4)


@form
def one_of_torchs() -> tuple[nn.Module, nn.Module, Tensor]:
    linear = nn.Linear(4, 3)
    return linear, compiled(linear), torch.randn(2, 4)


@form
def broken() -> tuple[nn.Module, nn.Module, Tensor]:
    model = Broken()
    return model, compiled(model), torch.randn(3, 4)


@form
def function() -> tuple[nn.Module, nn.Module, Tensor]:
    model, twin = Around(lambda wave: wave), Around(compiled)
    twin.load_state_dict(model.state_dict())
    return model, twin, torch.randn(3, 4)


@form
def recurrent() -> tuple[nn.Module, nn.Module, Tensor]:
    model = nn.Sequential(nn.Linear(4, 6), nn.GRU(6, 6))
    return model, compiled(model), torch.randn(3, 2, 4)


def leaves(node: NodePath) -> Iterator[str]:
    """The paths of all tensors below a node."""
    below = list(node)
    if not below and node._shape is not None:
        yield str(node)
    for child in below:
        yield from leaves(child)


def result_of(pg: PatchableGraph, x: Tensor) -> list[Tensor]:
    output = pg(x)
    return list(output) if isinstance(output, tuple) else [output]


@pytest.mark.parametrize("name", FORMS)
def test_the_graph_is_that_of_the_model(name: str) -> None:
    model, made, x = FORMS[name]()
    assert repr(PatchableGraph(made, x).graph) == repr(PatchableGraph(model, x).graph)


@pytest.mark.parametrize("name", FORMS)
def test_patches_at_every_node_are_those_of_the_model(name: str) -> None:
    model, made, x = FORMS[name]()
    eager, inside = PatchableGraph(model, x), PatchableGraph(made, x)
    paths = list(leaves(eager.graph))
    assert len(paths) > 2
    changed = 0
    with torch.no_grad():
        bare = result_of(inside, x)
        for path in paths:
            is_float = "int" not in repr(eager.graph[path]) and "bool" not in repr(eager.graph[path])
            for patch in (ZeroPatch(), AddPatch(value=1.0)) if is_float else (ZeroPatch(),):
                outcomes = []
                for pg in (eager, inside):
                    probe: ProbePatch = ProbePatch()
                    try:
                        with pg.patch({path: [probe, patch]}, on_missing="raise"):
                            outcomes.append((result_of(pg, x), probe.activation))
                    except RuntimeError as error:  # a patch that libtorch refuses must be refused in both
                        outcomes.append((str(error).splitlines()[0], None))
                (wanted, before), (found, same_before) = outcomes
                assert same(wanted, found), path
                assert same(before, same_before), path
                changed += not isinstance(found, str) and not same(found, bare)
        assert same(result_of(inside, x), bare)
    assert changed > len(paths) // 3


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_what_only_looks_changes_no_bit(backend: str) -> None:
    model = Model().eval()
    made, x = compiled(model, backend, fullgraph=True), ids()
    bare = made(x)
    pg = PatchableGraph(made, x)
    assert same(made(x), bare) and same(pg(x), bare) and same(pg.record(x), bare)
    eager = PatchableGraph(model, x)
    wanted: ProbePatch = ProbePatch()
    with eager.patch({"layers_1.softmax": wanted}):
        eager(x)
    probe: ProbePatch = ProbePatch()
    with pg.patch({"layers_1.softmax": probe}):
        assert same(pg(x), bare) and same(made(x), bare)
    torch.testing.assert_close(probe.activation, wanted.activation)
    assert same(made(x), bare)
    assert not pg.notes


def test_gradients_are_those_of_the_patched_model() -> None:
    net, x = Net(), torch.randn(3, 4)
    patches = {"blocks_0.sigmoid": ZeroPatch(slice=(..., 0)), "blocks_1.up.output": AddPatch(value=0.5)}
    gradients = []
    for pg in (PatchableGraph(net, x), PatchableGraph(compiled(net, "aot_eager"), x)):
        net.zero_grad()
        with pg.patch(patches):
            pg(x).square().sum().backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    assert same(*gradients)


def test_looking_leaves_buffers_and_random_numbers_alone() -> None:
    states = []
    for look in (False, True):
        torch.manual_seed(0)
        model = Writer()
        made, x = compiled(model), torch.ones(4, 4)
        pg = PatchableGraph(made, x)
        torch.manual_seed(1)
        for _ in range(3):
            if look:
                with pg.patch({"norm.output": (probe := ProbePatch())}), pg.recording():
                    output = pg(x)
                assert probe.activation is not None
            else:
                output = made(x)
        states.append([output, *model.state_dict().values(), torch.rand(3)])
    assert same(*states)


def test_other_shapes_come_into_the_graph() -> None:
    model = Model().eval()
    pg = PatchableGraph(compiled(model), ids())
    eager = PatchableGraph(model, ids())
    for length in (7, 3, 9):
        x = torch.randint(0, 11, (2, length))
        pg.record(x), eager.record(x)
        with pg.patch({"layers_0.output|hidden": ZeroPatch()}), eager.patch({"layers_0.output|hidden": ZeroPatch()}):
            assert same(pg(x), eager(x))
    assert repr(pg.graph) == repr(eager.graph)


def test_a_module_in_a_compiled_function_is_a_root() -> None:
    net, x = Net(), torch.randn(3, 4)
    twice = compiled(lambda x: net(x) * 2, fullgraph=True)
    bare = twice(x)
    pg = PatchableGraph(net, x)
    with pg.patch({"blocks_1.output": AddPatch(value=1.0)}):
        assert same(twice(x), pg(x) * 2)
    with pg.patch({"blocks_0.sigmoid": (probe := ProbePatch())}):
        assert same(twice(x), bare)
    assert probe.activation is not None and same(twice(x), bare)


def test_functions_of_the_user_and_replacements() -> None:
    net, x = Net(), torch.randn(3, 4)
    value = torch.randn(3, 6)
    results = []
    for pg in (PatchableGraph(net, x), PatchableGraph(compiled(net), x)):
        with pg.patch(
            {
                "blocks_0.sigmoid": CustomPatch(custom_op=lambda value: value.flip(0)),
                "blocks_1.mul": ReplacePatch(value=value),
            }
        ):
            results.append(pg(x))
    assert same(*results)


def test_a_patch_below_autocast() -> None:
    net, x = Net(), torch.randn(3, 4)
    results = []
    for pg in (PatchableGraph(net, x), PatchableGraph(compiled(net), x)):
        with torch.autocast("cpu", torch.bfloat16), pg.patch({"blocks_0.up.linear": AddPatch(value=1.0)}):
            results.append(pg(x))
    assert same(*results)


def test_lines_of_the_source_are_the_users() -> None:
    model, x = Model().eval(), ids()
    code = [str(PatchableGraph(form, x).graph.layers_1.softmax._code) for form in (model, compiled(model))]
    assert code[0] == code[1] and "weights = scores.softmax(-1)" in code[0]


def test_errors_name_the_patch() -> None:
    from libgraphpatch import PatchError

    net, x = Net(), torch.randn(3, 4)
    pg = PatchableGraph(compiled(net), x)
    with (
        pg.patch({"blocks_0.sigmoid": AddPatch(value=torch.ones(7))}),
        pytest.raises(PatchError, match="blocks_0.sigmoid"),
    ):
        pg(x)
    assert same(pg(x), net(x))


def test_somebody_has_put_the_function_of_calls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that replaces ``Module.__call__`` for a while may put back the object that it found there by a look-up."""
    net, x = Net(), torch.randn(3, 4)
    eager = PatchableGraph(net, x)
    for back in (False, True):
        if back:
            monkeypatch.setattr(nn.Module, "__call__", nn.Module.__call__)
        made = compiled(net)
        monkeypatch.undo()
        pg = PatchableGraph(made, x)
        assert repr(pg.graph) == repr(eager.graph)
        if back:
            continue
        monkeypatch.setattr(nn.Module, "__call__", nn.Module.__call__)
        assert same(pg.record(x), made(x)) and repr(pg.graph) == repr(eager.graph)
        monkeypatch.undo()
