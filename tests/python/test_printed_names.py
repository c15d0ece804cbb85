"""A parameter is patched under the name that the graph prints, and modules are found where they are."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph, ZeroPatch
from nets import names


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


class Leaf(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        return x


class Clash(nn.Module):
    """Reads the parameter of a module that it does not call, whose name a parameter of its own has already."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Module()
        self.a.b = Leaf()
        self.a_b_weight = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.a_b_weight + self.a.b.weight


class Digit(nn.Module):
    """Reads a parameter below a name that is a number."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([Leaf()])
        self.inner = nn.Sequential(Leaf())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.parts[0].weight + self.inner[0].weight


class Builtin(nn.Module):
    """A parameter whose name is one of Python's."""

    def __init__(self) -> None:
        super().__init__()
        self.max = nn.Parameter(torch.randn(3))
        self.low = nn.Module()
        self.low.register_parameter("max", nn.Parameter(torch.randn(3)))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.max * 2 + self.low.max


class Holder(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.block = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) * 1.0


@pytest.mark.parametrize("module", [Clash, Digit, Builtin])
@pytest.mark.parametrize("held", [False, True])
def test_a_parameter_is_patched_under_the_name_that_the_graph_prints(module: Any, held: bool) -> None:
    x = torch.randn(3)
    inner = module()
    root = Holder(inner) if held else inner
    pg = PatchableGraph(root, x)
    prefix = "block." if held else ""
    printed = [name for name in names(pg.graph.block if held else pg.graph) if "weight" in name or "max" in name]
    assert len(printed) == len(list(inner.parameters())), printed
    for name in printed:
        with pg.patch({prefix + name: ZeroPatch()}):
            zeroed = pg(x)
        differing = []
        for path, parameter in inner.named_parameters():
            before = parameter.clone()
            parameter.zero_()
            differing.append(torch.equal(root(x), zeroed))
            parameter.copy_(before)
        assert differing.count(True) == 1, f"{name}: {differing}"
        assert not torch.equal(zeroed, root(x))


class Many(nn.Module):
    """Counts how many modules are looked at to find paths."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Sequential(nn.Identity()) for _ in range(n)])
        self.looked_at = 0

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Module]]:
        for one in super().named_modules(*args, **kwargs):
            self.looked_at += 1
            yield one

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_a_first_run_is_linear_in_modules() -> None:
    """The fault was that each of n modules was searched among all n."""
    looked_at = []
    for n in (20, 200):
        model = Many(n)
        pg = PatchableGraph(model, torch.ones(2))
        looked_at.append(model.looked_at)
        assert len([name for name in dir(pg.graph) if name.startswith("layers_")]) == n
    assert looked_at[1] <= 11 * looked_at[0]


def test_modules_that_move_are_found_where_they_are() -> None:
    model = Many(3)
    pg = PatchableGraph(model, torch.ones(2))
    model.layers[0], model.layers[2] = model.layers[2], model.layers[0]
    model.layers[1] = nn.Sequential(nn.ReLU())
    for n in range(3):
        with pg.patch({f"layers_{n}.output": AddPatch(value=float(n + 1))}):
            assert pg(torch.ones(2)).tolist() == [n + 2.0] * 2
    assert pg(torch.ones(2)).tolist() == [1.0, 1.0]
