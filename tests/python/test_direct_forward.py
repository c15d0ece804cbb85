"""A direct call of a module's ``forward`` is a scope like a call of the module, and recorded and patched alike."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph, ProbePatch, SkipPatch, ZeroPatch
from libgraphpatch._native import native

pytestmark = pytest.mark.usefixtures("nothing_compiled")

X = torch.tensor([[1.0, -2.0, 3.0]])
NOTE = "calls the `forward` of another module"


class Direct(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sub = nn.Linear(3, 3)
        self.layers = nn.ModuleList([nn.Linear(3, 3)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer.forward(x)
        return self.sub.forward(x) * 2


class Handed(Direct):
    """Passes the bound ``forward`` to a function, which calls it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.apply_to(self.sub.forward, x)

    @staticmethod
    def apply_to(function: object, x: Tensor) -> Tensor:
        assert callable(function)
        return torch.relu(function(x))


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sub = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.sub(x)


class Same(Base):
    """All these calls are of the module's own ``forward``, so that none is a scope."""

    def forward(self, x: Tensor, again: bool = True) -> Tensor:
        x = super().forward(x) + Base.forward(self, x)
        return self.forward(x, False) if again else x


def through(net: nn.Module, module: nn.Module, change: object) -> Tensor:
    """The expected result, without the library: ``module.forward`` gets a wrapper that changes its result."""
    inner = module.forward
    module.forward = lambda *args: change(inner(*args))  # type: ignore[method-assign, operator]
    try:
        return net(X)
    finally:
        del module.forward


@pytest.mark.parametrize("kind", [Direct, Handed])
def test_a_direct_call_has_the_names_and_the_patches_of_a_call(kind: type[nn.Module]) -> None:
    net = kind()
    bare = net(X)
    expected = through(net, net.sub, lambda value: value + 1)
    pg = PatchableGraph(net, X)
    assert not [note for note in pg.notes if NOTE in note]
    inside = [name for name in dir(pg.graph.sub) if not name.startswith("_")]
    assert {"input", "weight", "bias", "linear", "output"} <= set(inside)
    probe = ProbePatch()
    with pg.patch({"sub.output": [AddPatch(value=1.0), probe]}, on_missing="raise"):
        assert torch.equal(pg(X), expected)
    assert probe.activation is not None
    with pg.patch({"sub.bias": ZeroPatch(), "sub.input": AddPatch(value=0.0)}, on_missing="raise"):
        changed = copy.deepcopy(net)
        nn.init.zeros_(changed.sub.bias)
        assert torch.equal(pg(X), changed(X))
    assert torch.equal(pg(X), bare)
    assert torch.equal(net(X), bare)


def test_items_of_a_list_are_scopes() -> None:
    net = Direct()
    pg = PatchableGraph(net, X)
    with pg.patch({"layers_0.output": AddPatch(value=1.0)}, on_missing="raise"):
        assert torch.equal(pg(X), net.sub(net.layers[0](X) + 1) * 2)
    with pg.patch({"layers_0": SkipPatch(value="input")}, on_missing="raise"):
        assert torch.equal(pg(X), net.sub(X) * 2)


def run_layers(layers: list[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer.forward(x)
    return x


class Plain:
    """An object that holds a module and is not a module itself."""

    def __init__(self) -> None:
        self.modules = [nn.Bilinear(3, 3, 3)]


class ByFunction(Base):
    """A global function makes the calls, one of them of a module that is not registered."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = Plain()

    def forward(self, x: Tensor) -> Tensor:
        x = run_layers([self.sub], x)
        return self.plain.modules[0].forward(x, x)


def test_a_function_makes_the_call_and_a_module_is_not_registered() -> None:
    net = ByFunction()
    bare = net(X)
    pg = PatchableGraph(net, X)
    for path, module in (("sub", net.sub), ("Bilinear", net.plain.modules[0])):
        expected = through(net, module, lambda value: value * 0)
        with pg.patch({f"{path}.output": ZeroPatch()}, on_missing="raise"):
            assert torch.equal(pg(X), expected)
    assert torch.equal(net(X), bare)


class Derived(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + super().forward(input)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.derived = Derived(3, 3)
        self.direct = Direct()

    def forward(self, x: Tensor) -> Tensor:
        return self.direct.forward(self.derived.forward(x)) + self.derived(x)


def test_super_forward_is_no_second_scope() -> None:
    net = Nested()
    pg = PatchableGraph(net, X)
    children = [name for name in dir(pg.graph.derived) if not name.startswith("_")]
    assert "linear" in children and "linear_1" in children and "Derived" not in children
    assert "sub" in dir(pg.graph.direct)
    with pg.patch({"derived_1.output": ZeroPatch(), "direct.sub.output": AddPatch(value=1.0)}, on_missing="raise"):
        x = net.derived(X)
        expected = (net.direct.sub(net.direct.layers[0](x)) + 1) * 2
        assert torch.equal(pg(X), expected)


def test_a_program_sees_its_own_functions() -> None:
    before = nn.Linear.forward
    net = Direct()
    own, derived = Direct.forward, Derived.forward
    pg = PatchableGraph(net, X)
    assert nn.Linear.forward is before and Direct.forward is own and Derived.forward is derived
    assert net.sub.forward.__func__ is before and net.sub.forward.__self__ is net.sub
    assert list(inspect.signature(net.sub.forward).parameters) == ["input"]
    assert isinstance(pickle.loads(pickle.dumps(net.sub)), nn.Linear)
    seen: list[object] = []

    class Looks(Direct):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((list(inspect.signature(self.sub.forward).parameters), self.sub.forward.__name__))
            return self.sub.forward(x)

    looks = PatchableGraph(Looks(), X)
    looks(X)
    assert seen and all(one == (["input"], "forward") for one in seen)
    assert torch.equal(pg(X), net(X))


def test_a_forward_of_an_object_of_its_own_is_noted() -> None:
    net = Direct()
    inner = net.sub.forward
    net.sub.forward = lambda value: inner(value) + 1  # type: ignore[method-assign]
    pg = PatchableGraph(net, X)
    assert [note for note in pg.notes if "has a `forward` of its own" in note and "Linear" in note], pg.notes
    assert torch.equal(pg(X), net(X))


def test_a_base_class_is_seen_after_its_subclass() -> None:
    class Above(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sub = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.sub.forward(x)

    class Below(Above):
        def forward(self, x: Tensor) -> Tensor:
            return self.sub.forward(super().forward(x))

    class Other(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    assert "sub_1" in dir(PatchableGraph(Below(), X).graph)
    net = Above()
    net.sub = Other(3, 3)
    pg = PatchableGraph(net, X)
    assert "sub" in dir(pg.graph), pg.graph
    with pg.patch({"sub.output": ZeroPatch()}):
        assert not pg(X).any()


COMPILED = """
import sys
import weakref
import torch
from test_direct_forward import NOTE, X, Direct
from libgraphpatch import AddPatch, PatchableGraph

first = Direct()
pg = PatchableGraph(first, X)
assert "sub" in dir(pg.graph)
net = Direct()
expected = net(X)
compiled = {
    "compile": lambda: torch.compile(net, backend="eager", fullgraph=True),
    "export": lambda: torch.export.export(net, (X,), strict=True).module(),
    "dynamo": lambda: torch._dynamo.export(net)(X).graph_module,
    "draft": lambda: torch.export.draft_export(net, (X,), strict=True).module(),
}[sys.argv[1]]()
assert torch.equal(compiled(X), expected)
late = PatchableGraph(Direct(), X)
assert [note for note in late.notes if NOTE in note and "Direct.forward" in note], late.notes
assert type(vars(torch.nn.Linear)["forward"]).__name__ == "function"
print("as it was")
"""


@pytest.mark.parametrize("way", ["compile", "export", "dynamo", "draft"])
def test_torch_compile_meets_the_functions_of_the_classes(way: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPILED, way],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        check=False,
    )
    assert done.returncode == 0 and "as it was" in done.stdout, done.stderr


class Wrapping(Base):
    """Replaces the ``forward`` of a module for a while; a call of the module then runs the replacement."""

    def forward(self, x: Tensor) -> Tensor:
        before = self.sub.forward
        self.sub.forward = lambda value: before(value) + 1  # type: ignore[method-assign]
        try:
            return self.sub(x)
        finally:
            self.sub.forward = before  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "module", [Same(), Base(), Wrapping(), nn.Sequential(nn.Linear(3, 3)), nn.TransformerEncoderLayer(3, 1, 4)]
)
def test_calls_of_a_modules_own_forward_are_none(module: nn.Module) -> None:
    assert not [note for note in PatchableGraph(module, X).notes if NOTE in note]


class Scaled(nn.Module):
    def forward(self, x: Tensor, scale: float = 2.0) -> Tensor:
        """Multiplies."""
        return x * scale


class Looks(nn.Module):
    """Looks at the ``forward`` and the ``__call__`` of another module, as libraries do that wrap them."""

    def __init__(self) -> None:
        super().__init__()
        self.sub = Scaled()
        self.seen: list[object] = []

    def forward(self, x: Tensor) -> Tensor:
        method, function = self.sub.forward, self.sub.forward.__func__
        self.seen = [
            inspect.ismethod(method),
            inspect.isfunction(function),
            str(inspect.signature(method)),
            inspect.getdoc(method),
            inspect.getsource(method),
            method == self.sub.forward,
            hash(method) == hash(self.sub.forward),
            function == Scaled.forward,
            weakref.WeakMethod(method)() == method,
            weakref.WeakMethod(self.sub.__call__)() == self.sub.__call__,
            pickle.loads(pickle.dumps(method))(x).tolist(),
            functools.partial(method, scale=3.0)(x).tolist(),
            *([] if native is None else [inspect.getfullargspec(method), function.__code__, function.__defaults__]),
        ]
        return method(x)


def test_a_program_sees_the_functions_that_it_has_written() -> None:
    model = Looks()
    model(X)
    bare = model.seen
    pg = PatchableGraph(model, X)
    assert model.seen == bare
    with pg.patch({"sub.mul": ZeroPatch()}, on_missing="ignore"):
        pg(X)
    assert model.seen[:10] == bare[:10]
