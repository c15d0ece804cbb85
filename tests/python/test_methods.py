"""Runs that are not begun by torch's own call of the root's module: by other methods than ``forward``, and by classes
with a ``__call__`` of their own."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, MissingPatchWarning, PatchableGraph, ProbePatch, ZeroPatch


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.up(x)) + x


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(3, 2)

    def encode(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

    @torch.no_grad()
    def generate(self, x: Tensor) -> Tensor:
        encoded = self.encode(x)
        return encoded.sum() + self(x).sum()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encode(x))


@pytest.fixture
def net() -> Net:
    return Net()


X = torch.linspace(-1.0, 1.0, 6).view(2, 3)


@pytest.mark.parametrize("through", ["graph", "module"])
def test_a_method_calls_modules_that_are_patched(net: Net, through: str) -> None:
    bare = net.encode(X)
    expected = net.layers[1](net.layers[0](X) + 1)
    pg = PatchableGraph(net, X)
    tree = repr(pg.graph)
    target = pg if through == "graph" else net
    probe = ProbePatch()
    with pg.patch({"layers_0.output": AddPatch(value=1.0), "layers_1.up.linear": probe}, on_missing="raise"):
        assert torch.equal(target.encode(X), expected)
    assert torch.equal(probe.activation, net.layers[1].up(net.layers[0](X) + 1))
    assert torch.equal(target.encode(X), bare) and repr(pg.graph) == tree


def test_a_method_that_calls_the_module_too(net: Net) -> None:
    expected = net.layers[1](torch.zeros(2, 3)).sum() + net.head(net.layers[1](torch.zeros(2, 3))).sum()
    pg = PatchableGraph(net, X)
    with pg.patch({"layers_0.output": ZeroPatch()}):
        assert torch.allclose(pg.generate(X), expected)
        assert torch.allclose(net.generate(X), expected)


def test_recording_a_method_adds_no_other_names(net: Net) -> None:
    pg = PatchableGraph(net, X)
    tree = repr(pg.graph)
    with pg.recording():
        pg.encode(X)
    assert repr(pg.graph) == tree


def test_what_the_program_calls_itself_is_left_alone(net: Net) -> None:
    pg = PatchableGraph(net, X)
    bare = net.layers[0](X)
    with pytest.warns(MissingPatchWarning):
        with pg.patch({"layers_0.output": ZeroPatch()}):
            assert torch.equal(net.layers[0](X), bare)


class Wrapped(nn.Module):
    """Like PEFT's models: ``forward`` and ``generate`` call the methods of the same name of the inner model."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Tuner()

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x)

    def generate(self, x: Tensor) -> Tensor:
        return self.base.generate(x)


class Tuner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = Net()

    def forward(self, x: Tensor) -> Tensor:
        return self.model.forward(x)

    def generate(self, x: Tensor) -> Tensor:
        return self.model.generate(x)


@pytest.mark.usefixtures("nothing_compiled")
def test_a_method_of_an_inner_model_whose_forward_alone_is_called() -> None:
    wrapped = Wrapped()
    inner = wrapped.base.model
    pg = PatchableGraph(wrapped, X)
    after = inner.layers[1](torch.zeros(2, 3))
    with pg.patch({"base.model.layers_0.output": ZeroPatch()}, on_missing="raise"):
        assert torch.equal(pg(X), inner.head(after))
        assert torch.allclose(pg.generate(X), after.sum() + inner.head(after).sum())


class OwnCall(nn.Module):
    """Its ``__call__`` is not torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def __call__(self, x: Tensor, scale: float = 2.0) -> Tensor:
        return self.linear(x) * scale

    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError("nobody calls it")


class AddsToTorchs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def __call__(self, *args: Any) -> Tensor:
        return super().__call__(*args) + 1

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def test_a_root_with_a_call_of_its_own() -> None:
    module = OwnCall()
    bare, expected = module(X), torch.zeros(2, 3) + 3
    pg = PatchableGraph(module, X)
    assert [str(node) for node in pg.graph] == ["x", "scale", "linear", "mul", "output"]
    with pg.patch({"linear.output": ZeroPatch(), "mul": AddPatch(value=3.0)}, on_missing="raise"):
        assert torch.equal(pg(X), expected) and torch.equal(module(X), expected)
    with pg.patch({"scale": AddPatch(value=1.0)}):
        assert torch.equal(pg(X), module.linear(X) * 3)
    assert torch.equal(module(X), bare)


def test_a_module_below_the_root_with_a_call_of_its_own() -> None:
    net = nn.Sequential(OwnCall(), nn.ReLU())
    pg = PatchableGraph(net, X)
    assert [str(node) for node in pg.graph.sub_0] == [
        "sub_0.x",
        "sub_0.scale",
        "sub_0.linear",
        "sub_0.mul",
        "sub_0.output",
    ]
    with pg.patch({"sub_0.output": ZeroPatch()}, on_missing="raise"):
        assert not pg(X).any()


def test_a_class_whose_call_adds_to_the_result_of_torchs_own() -> None:
    module = AddsToTorchs()
    bare = module(X)
    pg = PatchableGraph(module, X)
    assert [str(node) for node in pg.graph] == ["x", "linear", "output"]
    with pg.patch({"output": ZeroPatch()}):
        assert torch.equal(pg(X), torch.ones(2, 3))
    assert torch.equal(module(X), bare)


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


class Decorated(AddsToTorchs):
    __call__ = decorated(AddsToTorchs.__call__)


class WithoutGradients(AddsToTorchs):
    @torch.no_grad()
    def __call__(self, *args: Any) -> Tensor:
        return super().__call__(*args)


class ByMethod(AddsToTorchs):
    def __call__(self, *args: Any) -> Tensor:
        return self.compute(*args)

    def compute(self, *args: Any) -> Tensor:
        return super().__call__(*args)


@pytest.mark.parametrize("kind", [Decorated, WithoutGradients, ByMethod])
def test_a_call_of_torchs_own_is_no_second_scope(kind: type[nn.Module]) -> None:
    pg = PatchableGraph(module := kind(), X)
    assert [str(node) for node in pg.graph] == ["x", "linear", "output"]
    with pg.patch({"linear.output": ZeroPatch()}, on_missing="raise"):
        assert torch.equal(pg(X), torch.ones(2, 3)) and torch.equal(module(X), torch.ones(2, 3))


class OtherCall(OwnCall):
    __call__ = functools.partialmethod(lambda self, scale, x: self.linear(x) * scale, 3.0)


def test_a_call_that_is_no_function_is_refused_as_a_root_and_noted_below() -> None:
    with pytest.raises(ValueError, match="a call of OtherCall is no run: .* a `__call__` that is no function"):
        PatchableGraph(OtherCall(), X)
    pg = PatchableGraph(nn.Sequential(OtherCall()), X)
    assert any("OtherCall: its `__call__` is no function" in note for note in pg.notes)
