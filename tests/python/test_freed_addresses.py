"""Operators and parameters at an address that was freed are not taken for those that were there before."""

import gc
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph, ZeroPatch
from nets import define, names


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


SCHEMAS = [
    ("first(Tensor x) -> Tensor", lambda x: x + 1),
    ("second(Tensor x, Tensor y, int n=2) -> Tensor", lambda x, y, n=2: x * y + n),
    ("third(Tensor x) -> (Tensor, Tensor)", lambda x: (x + 3, x - 3)),
    ("fourth(Tensor(a!) x) -> Tensor(a!)", lambda x: x.add_(4)),
]


class Calls(nn.Module):
    """Calls the operator that is registered under the name at this moment."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        call = getattr(torch.ops.house, self.name)
        x = x.clone()
        made = call(x, x) if self.name == "second" else call(x)
        return made[0] * 2 if isinstance(made, tuple) else made * 2


def test_an_operator_registered_again_is_met_with_its_own_facts() -> None:
    x = torch.randn(5)
    for turn in range(12):
        schema, function = SCHEMAS[turn % len(SCHEMAS)]
        name = schema.split("(")[0]
        library = torch.library.Library("house", "FRAGMENT")
        define(library, schema, function)
        module = Calls(name)
        expected = module(x)
        pg = PatchableGraph(module, x)
        assert torch.equal(pg(x), expected)
        assert name in names(pg.graph), f"turn {turn}: {names(pg.graph)}"
        path = f"{name}|sub_0" if name == "third" else name
        with pg.patch({path: ZeroPatch()}):
            assert not pg(x).any(), name
        library._destroy()
        gc.collect()


def test_an_operator_of_the_same_name_gets_another_schema() -> None:
    x = torch.randn(5)
    schemas = [
        ("same(Tensor x) -> Tensor", lambda x: x + 1, (x,)),
        ("same(Tensor x, Tensor y) -> (Tensor, Tensor)", lambda x, y: (x + y, x - y), (x, x)),
        ("same(Tensor x, int n, int m, int k) -> Tensor", lambda x, n, m, k: x + n + m + k, (x, 1, 2, 3)),
    ]

    class Same(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            made = torch.ops.house.same(*args)
            return made[1] * 3 if isinstance(made, tuple) else made * 3

    for schema, function, args in schemas * 3:
        library = torch.library.Library("house", "FRAGMENT")
        define(library, schema, function)
        module = Same()
        expected = module(x)
        pg = PatchableGraph(module, x)
        assert torch.equal(pg(x), expected)
        assert names(pg.graph).count("same") == 1
        with pg.patch({"same|sub_1" if "(Tensor, Tensor)" in schema else "same": AddPatch(value=1.0)}):
            assert torch.allclose(pg(x), expected + 3)
        library._destroy()
        gc.collect()


class Counter(nn.Module):
    """Replaces a buffer in each call. The old tensor is freed, and the next new tensor may get its address."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        self.steps = self.steps + 1
        y = torch.relu(x)
        return y * 2


def test_a_tensor_at_a_freed_parameters_address_is_not_that_parameter() -> None:
    x = torch.rand(4) + 1
    pg = PatchableGraph(Counter(), x)
    with pg.patch({"steps": ZeroPatch()}):
        for _ in range(5):
            assert torch.equal(pg(x), torch.relu(x) * 2)


class Rebuilt(nn.Module):
    """The same with a parameter that is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.weight
        self.weight = nn.Parameter(torch.full((4,), 3.0))
        z = torch.relu(x)
        return y + z * 2


def test_a_parameter_that_is_replaced_in_the_run() -> None:
    x = torch.rand(4) + 1
    pg = PatchableGraph(Rebuilt(), x)
    with pg.patch({"weight": ZeroPatch()}):
        for _ in range(5):
            assert torch.equal(pg(x), torch.relu(x) * 2)
