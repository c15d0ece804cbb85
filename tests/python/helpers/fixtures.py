"""Small models whose NodePaths are compared with those of the Python package graphpatch.

FIXTURES maps a name to a function that returns (module, args, kwargs). The same call always builds the same weights
and inputs. Only features that torch 2.5 and 2.11, and transformers 4.45 and 4.57, both have are used, because the
package that we compare with cannot run with a newer torch.
"""

from __future__ import annotations

import math
import operator
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Fixture = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]

FIXTURES: dict[str, Callable[[], Fixture]] = {}


def fixture(build: Callable[[], Fixture]) -> Callable[[], Fixture]:
    """Lists a fixture under its function's name, with a seed of its own and in eval mode."""

    def seeded() -> Fixture:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module, args, kwargs = build()
        return module.eval(), args, kwargs

    FIXTURES[build.__name__] = seeded
    return seeded


# Inputs and outputs.


class TupleOutputModule(nn.Module):
    """One Linear, called on x and again on x + 1."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.linear(x), self.linear(x + 1)


@fixture
def tuple_output() -> Fixture:
    return TupleOutputModule(), (torch.ones(3, 2),), {}


class Minimal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


@fixture
def minimal() -> Fixture:
    return Minimal(), (torch.ones(3, 2),), {}


@fixture
def bare_linear() -> Fixture:
    """The root is itself a module of torch.nn."""
    return nn.Linear(2, 3), (torch.ones(3, 2),), {}


class Echo(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


@fixture
def echo() -> Fixture:
    """The output is the input and nothing is computed."""
    return Echo(), (torch.ones(3, 2),), {}


class DictOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.linear(x)
        return {"hidden": hidden, "sum": hidden + x}


@fixture
def dict_output() -> Fixture:
    return DictOutput(), (torch.ones(3, 2),), {}


class ListOutput(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x + 1, x * 2]


@fixture
def list_output() -> Fixture:
    return ListOutput(), (torch.ones(3, 2),), {}


class EchoAmongOutputs(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + 1, x


@fixture
def echo_among_outputs() -> Fixture:
    return EchoAmongOutputs(), (torch.ones(3, 2),), {}


class DeepOutputInner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Any]]:
        y = self.linear(x)
        return y, [y + 1, (y * 2, {"third": y - 3})]


class DeepOutput(nn.Module):
    """Containers inside containers, also between modules."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = DeepOutputInner()

    def forward(self, x: Tensor) -> tuple[Any, ...]:
        y, rest = self.inner(x)
        return (y, [rest[0], (rest[1][0], (x * 2,))], {"a": rest[1][1]["third"], "b": [y + x]})


@fixture
def deep_output() -> Fixture:
    return DeepOutput(), (torch.ones(3, 2),), {}


class MixedOutput(nn.Module):
    """Plain values and the same tensor twice among the outputs."""

    def forward(self, x: Tensor) -> tuple[Any, ...]:
        y = x + 1
        return y, None, 3, "text", 0.5, True, y


@fixture
def mixed_output() -> Fixture:
    return MixedOutput(), (torch.ones(3, 2),), {}


class NoOutput(nn.Module):
    def forward(self, x: Tensor) -> None:
        x + 1


@fixture
def no_output() -> Fixture:
    return NoOutput(), (torch.ones(3, 2),), {}


class ScalarOutput(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.exp().mean()


@fixture
def scalar_output() -> Fixture:
    return ScalarOutput(), (torch.ones(3, 2),), {}


@dataclass
class Pair:
    first: Tensor
    second: Tensor


class MakesPair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Pair:
        return Pair(first=self.linear(x), second=x * 2)


@fixture
def dataclass_output() -> Fixture:
    return MakesPair(), (torch.ones(3, 2),), {}


class UsesPair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pair = MakesPair()

    def forward(self, x: Tensor) -> Tensor:
        pair = self.pair(x)
        return pair.first + pair.second


@fixture
def dataclass_inside() -> Fixture:
    return UsesPair(), (torch.ones(3, 2),), {}


Point = namedtuple("Point", ["across", "up"])


class NamedTupleOutput(nn.Module):
    def forward(self, x: Tensor) -> Point:
        return Point(across=x + 1, up=x - 1)


@fixture
def namedtuple_output() -> Fixture:
    return NamedTupleOutput(), (torch.ones(3, 2),), {}


class OrderedDictOutput(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return OrderedDict(left=x + 1, right=x + 2)


@fixture
def ordered_dict_output() -> Fixture:
    return OrderedDictOutput(), (torch.ones(3, 2),), {}


class VarArgs(nn.Module):
    def forward(self, first: Tensor, *args: Tensor, **kwargs: Tensor) -> Tensor:
        total = first + 1
        for arg in args:
            total = total + arg
        for value in kwargs.values():
            total = total * value
        return total


@fixture
def varargs() -> Fixture:
    ones = torch.ones(3, 2)
    return VarArgs(), (ones, ones + 1, ones + 2), {"left": ones + 3, "right": ones + 4}


class PassesVarArgs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = VarArgs()

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        return self.inner(*args, **kwargs) - 1


@fixture
def varargs_inside() -> Fixture:
    ones = torch.ones(3, 2)
    return PassesVarArgs(), (ones, ones + 1), {"left": ones + 3}


@fixture
def varargs_empty() -> Fixture:
    """Nothing is passed for *args and **kwargs."""
    return VarArgs(), (torch.ones(3, 2),), {}


class Defaults(nn.Module):
    def forward(
        self,
        x: Tensor,
        scale: float = 2.0,
        bias: Tensor | None = None,
        *,
        flip: bool = False,
        shift: Tensor | None = None,
    ) -> Tensor:
        y = x * scale
        if bias is not None:
            y = y + bias
        if flip:
            y = y.flip(0)
        if shift is not None:
            y = y - shift
        return y


@fixture
def defaults_unused() -> Fixture:
    return Defaults(), (torch.ones(3, 2),), {}


@fixture
def defaults_passed() -> Fixture:
    return Defaults(), (torch.ones(3, 2), 3.0), {"bias": torch.ones(2), "flip": True, "shift": torch.ones(3, 2)}


class ContainerInputs(nn.Module):
    def forward(self, pair: tuple[Tensor, Tensor], items: list[Tensor], named: dict[str, Tensor]) -> Tensor:
        return pair[0] + pair[1] * items[0] - named["a"] / named["b"]


@fixture
def container_inputs() -> Fixture:
    ones = torch.ones(3, 2)
    return ContainerInputs(), ((ones, ones + 1), [ones + 2], {"a": ones, "b": ones + 1}), {}


class TupleInput(nn.Module):
    def forward(self, x: Tensor, pair: tuple[Tensor, Tensor]) -> Tensor:
        return x + pair[1]


class PassesTuple(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = TupleInput()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, (x * 2, x * 3))


@fixture
def tuple_input() -> Fixture:
    return TupleInput(), (torch.ones(3, 2), (torch.ones(3, 2), torch.ones(2))), {}


@fixture
def tuple_input_inside() -> Fixture:
    return PassesTuple(), (torch.ones(3, 2),), {}


class PassesContainers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = ContainerInputs()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner((x, x + 1), [x * 2], {"a": x, "b": x + 3})


@fixture
def container_inputs_inside() -> Fixture:
    return PassesContainers(), (torch.ones(3, 2),), {}


class PlainInputs(nn.Module):
    def forward(self, x: Tensor, power: int, scale: float, mode: str, flag: bool, nothing: None) -> Tensor:
        y = x**power * scale
        return y.relu() if flag and mode == "relu" and nothing is None else y


@fixture
def plain_inputs() -> Fixture:
    return PlainInputs(), (torch.ones(3, 2), 2, 0.5, "relu", True, None), {}


class UnusedInput(nn.Module):
    def forward(self, x: Tensor, unused: Tensor) -> Tensor:
        return x + 1


@fixture
def unused_input() -> Fixture:
    return UnusedInput(), (torch.ones(3, 2), torch.ones(4)), {}


# Modules inside modules.


class NestedInnermost(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + 1


class NestedMiddle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)
        self.child = NestedInnermost()

    def forward(self, x: Tensor) -> Tensor:
        return self.child(self.linear(x).relu()) * 2


class Nested(nn.Module):
    """Three modules deep."""

    def __init__(self) -> None:
        super().__init__()
        self.child_a = NestedMiddle()
        self.child_b = NestedMiddle()

    def forward(self, x: Tensor) -> Tensor:
        return self.child_b(self.child_a(x) + x)


@fixture
def nested() -> Fixture:
    return Nested(), (torch.ones(3, 2),), {}


class RepeatedInner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.linear(x) + 1)


class RepeatedParent(nn.Module):
    """A module called three times, which calls another one once."""

    def __init__(self) -> None:
        super().__init__()
        self.child = NestedInnermost()
        self.widen = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.child(self.widen(x))
        return x


@fixture
def repeated_parent() -> Fixture:
    return RepeatedParent(), (torch.ones(3, 2),), {}


class Repeated(nn.Module):
    """A module called three times, which calls another one twice."""

    def __init__(self) -> None:
        super().__init__()
        self.child = RepeatedInner()

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.child(x)
        return x


@fixture
def repeated() -> Fixture:
    return Repeated(), (torch.ones(3, 2),), {}


class SharedModule(nn.Module):
    """Two attributes hold the same module."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(2, 2)
        self.right = self.left

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + self.right(x + 1)


@fixture
def shared_module() -> Fixture:
    return SharedModule(), (torch.ones(3, 2),), {}


class SharedParameter(nn.Module):
    """Two modules hold the same weight, as a language model's embedding and head do."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 2)
        self.head = nn.Linear(2, 5, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids))


@fixture
def shared_parameter() -> Fixture:
    return SharedParameter(), (torch.tensor([[0, 3, 1]]),), {}


class UnusedSubmodules(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(2, 2)
        self.unused = nn.Linear(2, 2)
        self.unused_list = nn.ModuleList([nn.Linear(2, 2), Nested()])

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


@fixture
def unused_submodules() -> Fixture:
    return UnusedSubmodules(), (torch.ones(3, 2),), {}


class ForeignWeight(nn.Module):
    """Reads a child's weight without calling the child."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.linear.weight) + self.linear.bias


@fixture
def foreign_weight() -> Fixture:
    return ForeignWeight(), (torch.ones(3, 2),), {}


class HelperMethods(nn.Module):
    """Calls its child from methods of its own, and one method of the child that is not forward."""

    def __init__(self) -> None:
        super().__init__()
        self.child = RepeatedInner()
        self.child_linear = nn.Linear(2, 2)

    def before(self, x: Tensor) -> Tensor:
        return self.child_linear(x) + 1

    def forward(self, x: Tensor) -> Tensor:
        return self.child.linear(self.before(x)) * 2


@fixture
def helper_methods() -> Fixture:
    return HelperMethods(), (torch.ones(3, 2),), {}


# Containers of modules.


@fixture
def sequential() -> Fixture:
    """The root is a Sequential."""
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), (torch.ones(3, 2),), {}


class CallsSequential(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 2), nn.Tanh()))
        self.named = nn.Sequential(OrderedDict(first=nn.Linear(2, 2), second=nn.GELU()))

    def forward(self, x: Tensor) -> Tensor:
        return self.named(self.layers(x))


@fixture
def sequential_inside() -> Fixture:
    return CallsSequential(), (torch.ones(3, 2),), {}


class Lists(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 2), RepeatedInner(), nn.Linear(2, 2)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.layers[0](x)


@fixture
def module_list() -> Fixture:
    return Lists(), (torch.ones(3, 2),), {}


class Dicts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"up": nn.Linear(2, 3), "down": nn.Linear(3, 2), "with-dash": nn.Linear(2, 2)})

    def forward(self, x: Tensor) -> Tensor:
        return self.parts["with-dash"](self.parts["down"](self.parts["up"](x)))


@fixture
def module_dict() -> Fixture:
    return Dicts(), (torch.ones(3, 2),), {}


class NestedContainers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [
                nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])})
                for _ in range(2)
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block["a"](x)
            for layer in block["b"]:
                x = layer(x)
        return x


@fixture
def nested_containers() -> Fixture:
    return NestedContainers(), (torch.ones(3, 2),), {}


class SkipsItem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[2](self.layers[1](x))


@fixture
def module_list_skips() -> Fixture:
    return SkipsItem(), (torch.ones(3, 2),), {}


class ParameterContainers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.ParameterList([nn.Parameter(torch.rand(2)) for _ in range(2)])
        self.shifts = nn.ParameterDict({"one": nn.Parameter(torch.rand(2))})

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scales[0] + self.scales[1] - self.shifts["one"]


@fixture
def parameter_containers() -> Fixture:
    return ParameterContainers(), (torch.ones(3, 2),), {}


# Parameters and buffers.


class Buffers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(2))
        self.register_buffer("offset", torch.ones(2))
        self.register_buffer("transient", torch.ones(2) * 2, persistent=False)
        self.register_buffer("absent", None)
        self.register_buffer("never_read", torch.ones(7))
        self.scale = 3.0
        self.plain_tensor = torch.ones(2) * 4

    def forward(self, x: Tensor) -> Tensor:
        y = (x + self.offset) * self.weight - self.transient
        return y * self.scale + self.plain_tensor + self.offset


@fixture
def buffers() -> Fixture:
    return Buffers(), (torch.ones(3, 2),), {}


class Counter(nn.Module):
    """Writes to its own buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return x * self.calls


@fixture
def buffer_written() -> Fixture:
    return Counter(), (torch.ones(3, 2),), {}


class LayerNorms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.plain = nn.LayerNorm(4, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(self.norm(x)) + F.layer_norm(x, (4,))


@fixture
def layer_norm() -> Fixture:
    return LayerNorms(), (torch.rand(2, 3, 4),), {}


class RMSNorm(nn.Module):
    """Written out, as transformers' models have it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4))
        self.eps = 1e-6

    def forward(self, hidden: Tensor) -> Tensor:
        dtype = hidden.dtype
        hidden = hidden.to(torch.float32)
        variance = hidden.pow(2).mean(-1, keepdim=True)
        hidden = hidden * torch.rsqrt(variance + self.eps)
        return self.weight * hidden.to(dtype)


@fixture
def rms_norm() -> Fixture:
    return RMSNorm(), (torch.rand(2, 3, 4),), {}


# Names that are special somewhere.


class BuiltinNames(nn.Module):
    """Submodules, parameters and arguments named after builtins."""

    def __init__(self) -> None:
        super().__init__()
        self.print = nn.Linear(2, 2)
        self.sum = nn.Linear(2, 2)
        self.max = nn.Parameter(torch.rand(2))
        self.register_buffer("id", torch.ones(2))

    def forward(self, input: Tensor, type: Tensor, len: Tensor) -> Tensor:
        x = self.print(input) + type
        x = self.sum(x) * len
        return x * self.max + self.id


@fixture
def builtin_names() -> Fixture:
    ones = torch.ones(3, 2)
    return BuiltinNames(), (ones, ones + 1), {"len": ones + 2}


class KeywordModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.add_module("class", nn.Linear(2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, "class")(x)


@fixture
def keyword_module() -> Fixture:
    return KeywordModule(), (torch.ones(3, 2),), {}


class KeywordParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("lambda", nn.Parameter(torch.rand(2)))

    def forward(self, x: Tensor) -> Tensor:
        return x * getattr(self, "lambda")


@fixture
def keyword_parameter() -> Fixture:
    return KeywordParameter(), (torch.ones(3, 2),), {}


class ReservedNames(nn.Module):
    """Modules with names that mean something at a node of a NodePath tree."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names
        for name in names:
            self.add_module(name, nn.Linear(2, 2))

    def forward(self, x: Tensor) -> Tensor:
        for name in self.names:
            x = getattr(self, name)(x)
        return x


@fixture
def reserved_modules() -> Fixture:
    return ReservedNames(["_code", "_shape"]), (torch.ones(3, 2),), {}


@fixture
def graph_modules() -> Fixture:
    """Names that torch.fx has a use for."""
    return ReservedNames(["code", "graph"]), (torch.ones(3, 2),), {}


@fixture
def module_named_output() -> Fixture:
    return ReservedNames(["output"]), (torch.ones(3, 2),), {}


class ReservedArguments(nn.Module):
    def forward(self, _code: Tensor, _shape: Tensor, output: Tensor, add: Tensor) -> Tensor:
        return _code + _shape + output + add


@fixture
def reserved_arguments() -> Fixture:
    ones = torch.ones(3, 2)
    return ReservedArguments(), (ones, ones, ones, ones), {}


class ReservedParameters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._shape = nn.Parameter(torch.rand(2))
        self.register_buffer("mul", torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return x * self._shape * self.mul


@fixture
def reserved_parameters() -> Fixture:
    return ReservedParameters(), (torch.ones(3, 2),), {}


class DigitNames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.add_module("0", nn.Linear(2, 2))
        self.add_module("1st", nn.Linear(2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, "1st")(getattr(self, "0")(x))


@fixture
def digit_names() -> Fixture:
    return DigitNames(), (torch.ones(3, 2),), {}


class ClashingNames(nn.Module):
    """Operations, modules, parameters and an input that would all get the same name."""

    def __init__(self) -> None:
        super().__init__()
        self.add = nn.Linear(2, 2)
        self.mul_1 = nn.Parameter(torch.rand(2))

    def forward(self, x: Tensor, relu: Tensor) -> Tensor:
        y = x + 1
        y = self.add(y) + 2
        y = y * 2
        y = y * self.mul_1
        return (y * 3).relu() + relu.relu()


@fixture
def clashing_names() -> Fixture:
    return ClashingNames(), (torch.ones(3, 2), torch.ones(3, 2)), {}


class ModuleLikeOperation(nn.Module):
    """Modules named like the operations next to them."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.linear = nn.Linear(2, 2)
        self.weight = nn.Parameter(torch.rand(2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.relu(self.linear(self.linear(self.relu(F.relu(x + 1))))), self.weight)


@fixture
def module_like_operation() -> Fixture:
    return ModuleLikeOperation(), (torch.rand(3, 2),), {}


# Control flow.


class GraphBreak(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x) + 1
        torch._dynamo.graph_break()
        return y * 2


@fixture
def graph_break() -> Fixture:
    return GraphBreak(), (torch.ones(3, 2),), {}


class GraphBreakInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.breaks = GraphBreak()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.breaks(x) + x)


@fixture
def graph_break_inside() -> Fixture:
    return GraphBreakInside(), (torch.ones(3, 2),), {}


class DataDependent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.positive = nn.Linear(2, 2)
        self.negative = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.positive(x) + 1 if x.sum().item() > 0 else self.negative(x) - 1


@fixture
def data_dependent() -> Fixture:
    return DataDependent(), (torch.ones(3, 2),), {}


class WhileLoop(nn.Module):
    """How often the child is called depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.child = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        calls = 0
        while x.abs().sum() > 0.5 and calls < 3:
            x = self.child(x) * 0.5
            calls += 1
        return x


@fixture
def while_loop() -> Fixture:
    return WhileLoop(), (torch.ones(3, 2),), {}


class RepeatedUnderBreak(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        self.weight = nn.Parameter(torch.rand(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        torch._dynamo.graph_break()
        x = self.linear(x)
        for layer in self.layers:
            x = layer(x)
        return x * self.weight


@fixture
def graph_break_repeated() -> Fixture:
    return RepeatedUnderBreak(), (torch.ones(3, 2),), {}


class ShapeDependent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape
        y = x.view(columns, rows)
        if rows > 2:
            y = y + x.size(0)
        return y.reshape(-1, x.shape[-1])


@fixture
def shape_dependent() -> Fixture:
    return ShapeDependent(), (torch.ones(3, 2),), {}


class NoGrad(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.linear(x) * 2
        return y + x


@fixture
def no_grad_inside() -> Fixture:
    return NoGrad(), (torch.ones(3, 2),), {}


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.child = NestedMiddle()

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.child, x, use_reentrant=False) + 1


@fixture
def checkpointed() -> Fixture:
    return Checkpointed(), (torch.ones(3, 2),), {}


# Operations.


class Arithmetic(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        a = x + 1
        a = 1 + a
        a = a - y
        a = 1 - a
        a = a * 2
        a = 2 * a
        a = a / 3
        a = 3 / a
        a = a // 0.5
        a = a % 7
        a = -a
        a = +a
        a = a**2
        a = 2**a
        a = abs(a)
        a = a + torch.add(x, y) + x.add(y) + torch.sub(x, y) + torch.div(x, y) + x.div(y) + torch.neg(x)
        a = a + torch.true_divide(x, y) + torch.multiply(x, y) + torch.rsub(x, y)
        return a


@fixture
def arithmetic() -> Fixture:
    return Arithmetic(), (torch.rand(3, 2) + 1, torch.rand(3, 2) + 1), {}


class Comparisons(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        mask = (x > y) & (x >= 0.5) | (x < 0.1) ^ (x <= y)
        mask = ~mask
        mask = (x == y) | (x != y) | mask | torch.logical_not(mask) | (0.5 > x)
        ints = x.long()
        ints = (ints << 1) >> 1
        return mask.float() + ints


@fixture
def comparisons() -> Fixture:
    return Comparisons(), (torch.rand(3, 2), torch.rand(3, 2)), {}


class Shadowing(nn.Module):
    """Operations that Python has a builtin of the same name for."""

    def forward(self, x: Tensor) -> Tensor:
        a = x.pow(2) + torch.pow(x, 3)
        a = a + x.sum() + torch.sum(x, dim=0)
        a = a + x.max() + torch.max(x, dim=0).values + x.min() + torch.min(x, dim=1, keepdim=True)[0]
        a = a + x.abs() + torch.abs(x) + x.round() + torch.round(x)
        a = a + x.any() + x.all() + torch.any(x) + torch.all(x)
        a = a + torch.complex(x, x).real
        return a + x.float() + x.int() + x.bool() + x.type(torch.float32)


@fixture
def shadowing() -> Fixture:
    return Shadowing(), (torch.rand(3, 2),), {}


class OperatorModule(nn.Module):
    """The operator module's functions instead of its symbols."""

    def forward(self, x: Tensor) -> Tensor:
        y = operator.add(x, 1)
        y = operator.truediv(y, 2)
        y = operator.matmul(y, x.T)
        return operator.getitem(y, 0)


@fixture
def operator_module() -> Fixture:
    return OperatorModule(), (torch.rand(3, 2),), {}


class Products(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        a = x @ y
        a = a + torch.matmul(x, y) + x.matmul(y) + torch.mm(x, y) + x.mm(y)
        a = a + torch.einsum("ij,jk->ik", x, y)
        batch = torch.bmm(x[None], y[None]) + torch.baddbmm(a[None], x[None], y[None])
        a = a + batch[0] + torch.addmm(a, x, y)
        a = a + torch.outer(x[:, 0], y[0]) + torch.dot(x[0], y[:, 0]) + torch.mv(x, y[:, 0])
        return a + torch.tensordot(x, y, dims=1)


@fixture
def products() -> Fixture:
    return Products(), (torch.rand(3, 2), torch.rand(2, 3)), {}


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.weight)
        x = F.relu(x) + torch.relu(x) + x.relu() + F.relu(x, inplace=False)
        x = F.gelu(x) + F.gelu(x, approximate="tanh") + F.silu(x) + F.leaky_relu(x) + F.elu(x) + F.softplus(x)
        x = torch.sigmoid(x) + F.sigmoid(x) + x.sigmoid() + torch.tanh(x) + F.tanh(x) + F.hardtanh(x)
        x = F.softmax(x, dim=-1) + torch.softmax(x, -1) + x.softmax(-1) + F.log_softmax(x, dim=-1)
        x = F.dropout(x, 0.5, self.training) + F.dropout(x, 0.5, training=True) * 0
        x = F.layer_norm(x, (4,)) + F.normalize(x, dim=-1)
        x = F.pad(x, (1, 1))[..., 1:-1]
        return x + F.mse_loss(x, x) + F.cross_entropy(x, torch.zeros(3, dtype=torch.long))


@fixture
def functional() -> Fixture:
    return Functional(), (torch.rand(3, 4),), {}


class NNModules(nn.Module):
    """One of each common layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.dropout = nn.Dropout(0.5)
        self.norm = nn.LayerNorm(4)
        self.relu = nn.ReLU()
        self.gelu = nn.GELU(approximate="tanh")
        self.silu = nn.SiLU()
        self.softmax = nn.Softmax(dim=-1)
        self.identity = nn.Identity()
        self.flatten = nn.Flatten()
        self.tanh = nn.Tanh()
        self.sigmoid = nn.Sigmoid()

    def forward(self, ids: Tensor) -> Tensor:
        x = self.dropout(self.embedding(ids))
        x = self.identity(self.norm(x))
        x = self.relu(x) + self.gelu(x) + self.silu(x) + self.tanh(x) + self.sigmoid(x)
        return self.flatten(self.softmax(x))


@fixture
def nn_modules() -> Fixture:
    return NNModules(), (torch.tensor([[0, 3, 1]]),), {}


class Shapes(nn.Module):
    """Operations that give the same memory another shape, as methods and as functions."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.view(6, 4).reshape(2, 3, 4) + torch.reshape(x, (2, 3, 4))
        y = y.transpose(1, 2).contiguous().permute(0, 2, 1)
        y = torch.transpose(y, 0, 1).transpose(0, 1) + torch.permute(y, (0, 1, 2))
        y = y.unsqueeze(0).squeeze(0) + torch.unsqueeze(y, 0).squeeze(0)
        y = y.expand(2, 3, 4) + y[:1].expand_as(y) + y[:1].repeat(2, 1, 1)
        y = y.flatten(1).unflatten(1, (3, 4)) + torch.flatten(y).view(2, 3, 4)
        y = y + y.mT.mT + y.swapaxes(0, 1).swapaxes(0, 1) + y.movedim(0, 1).movedim(1, 0)
        return y.narrow(1, 0, 2) + y.select(0, 0)[:2] + torch.broadcast_to(y[0, :2], (2, 2, 4)) + y[0].T.t()[:2]


@fixture
def shapes() -> Fixture:
    return Shapes(), (torch.rand(2, 3, 4),), {}


class Conversions(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.to(torch.float64).to("cpu").to(x)
        y = y.float() + x.double().float() + x.half().float() + x.bfloat16().float()
        y = y + x.type_as(y) + x.clone() + x.detach() + x.contiguous() + x.long() + x.to(dtype=torch.float32)
        return y.cpu() + x.data


@fixture
def conversions() -> Fixture:
    return Conversions(), (torch.rand(2, 3),), {}


class Splits(nn.Module):
    """Operations with more than one result."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=-1)
        c, d = torch.chunk(x, 2, dim=-1)
        e, f = x.split(2, dim=-1)
        g, h = torch.split(x, [1, 3], dim=-1)
        i, j, k, m = x.unbind(-1)
        values, indices = x.topk(2)
        ordered, order = torch.sort(x, dim=-1)
        largest = x.max(dim=-1)
        y = a + b + c * d + e - f + h[:, 1:] + g + (i + j + k + m)[:, None]
        y = y + values + indices + ordered[:, :2] + order[:, :2]
        return y + largest.values[:, None] + largest.indices[:, None] + torch.var_mean(x)[0]


@fixture
def splits() -> Fixture:
    return Splits(), (torch.rand(3, 4),), {}


class Joins(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        z = torch.cat([x, y], dim=0) + torch.cat((y, x)) + torch.concat([x, x])
        z = torch.stack([z, z]) + torch.hstack([z, z])[:, :2]
        return torch.where(z > 1, z, torch.zeros_like(z))


@fixture
def joins() -> Fixture:
    return Joins(), (torch.rand(3, 2), torch.rand(3, 2)), {}


class Subscripts(nn.Module):
    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        a = x[0]
        b = x[:, 1]
        c = x[..., -1]
        d = x[:, None, 1:3, ::2]
        e = x[index]
        g = x[0, 1, 2]
        h = x[:, index, 1]
        i = x[-1][0][1]
        j = x[None]
        y = a.sum() + b.mean() + c.mean() + d.mean() + e.mean() + g + h.mean() + i + j.mean()
        return y + x.gather(2, index.view(1, 1, -1).expand(2, 3, 2)).mean() + x.index_select(0, index).mean()


@fixture
def subscripts() -> Fixture:
    return Subscripts(), (torch.rand(2, 3, 4), torch.tensor([1, 0])), {}


class MaskSubscript(nn.Module):
    """How many elements are left depends on the values."""

    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0.5].sum() + 1


@fixture
def mask_subscript() -> Fixture:
    return MaskSubscript(), (torch.rand(3, 2),), {}


class InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        y += 1
        y.add_(2)
        y *= 3
        y.mul_(x)
        y -= x
        y /= 2
        y[0] = 7
        y[:, 1] += 1
        y.masked_fill_(y > 8, 0.0)
        y.relu_()
        z = torch.zeros(3, 2)
        z.copy_(y)
        torch.add(z, 1, out=z)
        F.relu(z, inplace=True)
        return z.clamp_(0, 5)


@fixture
def in_place() -> Fixture:
    return InPlace(), (torch.rand(3, 2),), {}


class Creations(nn.Module):
    """Tensors that are made inside the model."""

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        mask = torch.tril(torch.ones(n, n)) + torch.full((n, n), 0.5) + torch.zeros(n, n) + torch.eye(n)
        positions = torch.arange(n) + torch.arange(0, n, 1, dtype=torch.float32)
        y = torch.ones_like(x) + torch.zeros_like(x) + torch.full_like(x, 2.0) + x.new_zeros(x.shape) + x.new_ones(3, 2)
        y = y + torch.tensor(1.5) + torch.empty_like(x).fill_(0.0) + torch.linspace(0, 1, 2)
        return mask @ y + positions[:, None] * torch.finfo(x.dtype).eps + math.sqrt(2.0)


@fixture
def creations() -> Fixture:
    return Creations(), (torch.rand(3, 2),), {}


class Reductions(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.mean() + x.mean(dim=0) + x.mean(-1, keepdim=True) + torch.mean(x) + x.var(0) + x.std(0) + x.norm()
        y = y + x.argmax() + x.argmin(dim=0) + x.prod() + x.cumsum(0) + torch.cumsum(x, 1) + x.logsumexp(0)
        y = y + x.sum(-1, keepdim=True) + x.sum((0, 1)) + x.amax(0) + torch.linalg.norm(x)
        return y + x.exp().log().sqrt().rsqrt() + x.sin().cos() + torch.clamp(x, 0, 1) + x.clamp(min=0.1)


@fixture
def reductions() -> Fixture:
    return Reductions(), (torch.rand(3, 2) + 1,), {}


# Nets.


class Attention(nn.Module):
    """Attention by torch's fused function."""

    def __init__(self, causal: bool = True) -> None:
        super().__init__()
        self.heads = 2
        self.causal = causal
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q = q.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)
        k = k.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)
        v = v.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(y.transpose(1, 2).contiguous().view(batch, tokens, width))


@fixture
def attention() -> Fixture:
    return Attention(), (torch.rand(1, 5, 8),), {}


class WrittenAttention(nn.Module):
    """Attention written out, with a mask in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(8, 8)
        self.key = nn.Linear(8, 8)
        self.value = nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.1)
        self.register_buffer("mask", torch.tril(torch.ones(16, 16)).bool())

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.shape[1]
        scores = self.query(x) @ self.key(x).transpose(-2, -1) / math.sqrt(8)
        scores = scores.masked_fill(~self.mask[:tokens, :tokens], float("-inf"))
        return self.dropout(scores.softmax(dim=-1)) @ self.value(x)


@fixture
def written_attention() -> Fixture:
    return WrittenAttention(), (torch.rand(1, 5, 8),), {}


class TorchAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y, weights = self.attention(x, x, x)
        return y + weights.sum()


@fixture
def multihead_attention() -> Fixture:
    return TorchAttention(), (torch.rand(1, 5, 8),), {}


@fixture
def encoder_layer() -> Fixture:
    return nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True), (torch.rand(1, 5, 8),), {}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(8)
        self.attention = Attention()
        self.norm_2 = nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm_1(x))
        return x + self.mlp(self.norm_2(x))


class SmallTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 8)
        self.positions = nn.Embedding(16, 8)
        self.blocks = nn.ModuleList([Block() for _ in range(2)])
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 11, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


@fixture
def small_transformer() -> Fixture:
    return SmallTransformer(), (torch.tensor([[1, 4, 9, 2]]),), {}


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)) + x)


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(Residual(), Residual())
        self.pool = nn.MaxPool2d(2)
        self.average = nn.AdaptiveAvgPool2d((1, 1))
        self.head = nn.Linear(4, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.pool(self.blocks(self.stem(image)))
        return self.head(torch.flatten(self.average(x), 1))


@fixture
def conv_net() -> Fixture:
    return ConvNet(), (torch.rand(1, 3, 8, 8),), {}


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 3, batch_first=True)
        self.cell = nn.GRUCell(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, (hidden, _) = self.lstm(x)
        return self.cell(y[:, -1], hidden[0])


@fixture
def recurrent() -> Fixture:
    return Recurrent(), (torch.rand(2, 5, 4),), {}


# Language models from a config, with random weights. Nothing is looked up outside.


def _gpt2(attention: str, **kwargs: Any) -> Fixture:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=64,
        n_positions=32,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation=attention,
    )
    ids = torch.tensor([[5, 17, 3, 42, 8]])
    return GPT2LMHeadModel(config), (ids,), {"use_cache": False, **kwargs}


@fixture
def gpt2_eager() -> Fixture:
    return _gpt2("eager")


@fixture
def gpt2_sdpa() -> Fixture:
    return _gpt2("sdpa")


@fixture
def gpt2_tuple() -> Fixture:
    """Plain tuples instead of transformers' output classes."""
    return _gpt2("eager", return_dict=False)


def _llama(attention: str) -> Fixture:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        attn_implementation=attention,
    )
    ids = torch.tensor([[5, 17, 3, 42, 8]])
    return LlamaForCausalLM(config), (ids,), {"use_cache": False}


@fixture
def llama_eager() -> Fixture:
    return _llama("eager")


@fixture
def llama_sdpa() -> Fixture:
    return _llama("sdpa")
