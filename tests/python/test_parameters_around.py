"""A parameter that one scope reads although a module below it owns it: a patch in that scope holds for everything inside of
it from there on, and one in the owner's scope holds there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph, ZeroPatch


class Reads(nn.Module):
    """Reads parameters of a submodule, before and after it calls the submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(3, 3)
        self.deep = nn.Sequential(nn.Linear(3, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        first = x @ self.before.weight
        second = self.before(x)
        third = self.deep(x)
        return first, second, third, x + self.deep[0].bias


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.reads = Reads()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y: tuple[Tensor, ...] = self.reads(x)
        return y


X = torch.arange(6.0).view(2, 3) / 4


def by_hand(module: Reads, x: Tensor, read: Tensor, own: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    third = F.linear(x, module.deep[0].weight, module.deep[0].bias)
    return x @ read, F.linear(x, own, module.before.bias), third, x + bias


@pytest.mark.parametrize("below", ["", "reads."])
def test_a_patch_holds_in_the_scope_that_its_path_names_and_below(below: str) -> None:
    torch.manual_seed(0)
    module: nn.Module = Outer() if below else Reads()
    inner = module.reads if below else module
    assert isinstance(inner, Reads)
    weight, bias = inner.before.weight.detach(), inner.deep[0].bias.detach()
    pg = PatchableGraph(module, X)

    def check(patches: dict[str, object], read: Tensor, own: Tensor, last: Tensor) -> None:
        with torch.no_grad(), pg.patch({below + path: patch for path, patch in patches.items()}, on_missing="raise"):
            for _ in range(2):
                for found, expected in zip(pg(X), by_hand(inner, X, read, own, last), strict=True):
                    torch.testing.assert_close(found, expected, rtol=0, atol=0)

    check({}, weight, weight, bias)
    check({"before_weight": AddPatch(value=1.0)}, weight + 1, weight + 1, bias)
    check({"before.weight": AddPatch(value=1.0)}, weight, weight + 1, bias)
    both = {"before_weight": AddPatch(value=1.0), "before.weight": AddPatch(value=2.0)}
    check(both, weight + 1, weight + 1 + 2, bias)
    check({"before_weight": ZeroPatch(slice=0)}, zero_row(weight), zero_row(weight), bias)
    # The submodule has read its bias already when the scope around it does.
    check({"deep_0_bias": AddPatch(value=1.0)}, weight, weight, bias + 1)
    assert torch.equal(inner.before.weight, weight)


def zero_row(weight: Tensor) -> Tensor:
    changed = weight.clone()
    changed[0] = 0
    return changed


class Gives(nn.Module):
    """Returns its own parameter, as itself or in a container."""

    def __init__(self, wrap: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.arange(9.0).view(3, 3))
        self.wrap = wrap

    def forward(self, x: Tensor) -> object:
        return self.wrap(self.w)


class Takes(nn.Module):
    def __init__(self, wrap: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.gives = Gives(wrap)

    def forward(self, x: Tensor) -> Tensor:
        given = self.gives(x)
        while not isinstance(given, Tensor):
            given = given["w"] if isinstance(given, dict) else given[0]
        return x @ given


@pytest.mark.parametrize(
    "wrap", [lambda w: w, lambda w: [w], lambda w: {"w": w}, lambda w: ([w],)], ids=["itself", "list", "dict", "nested"]
)
def test_a_parameter_that_a_module_returns(wrap: Callable[[Tensor], object]) -> None:
    module = Takes(wrap)
    pg = PatchableGraph(module, X)
    with torch.no_grad(), pg.patch({"gives.w": AddPatch(value=1.0)}, on_missing="raise"):
        for _ in range(2):
            assert torch.equal(pg(X), X @ (module.gives.w + 1))
    assert torch.equal(pg(X), X @ module.gives.w)


class Apply(nn.Module):
    def forward(self, x: Tensor, weights: object) -> Tensor:
        while not isinstance(weights, Tensor):
            weights = weights["w"] if isinstance(weights, dict) else weights[0]
        return x @ weights + weights.sum()


class Hands(nn.Module):
    def __init__(self, wrap: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.apply_ = Apply()
        self.w = nn.Parameter(torch.arange(9.0).view(3, 3))
        self.wrap = wrap

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.apply_(x, self.wrap(self.w))
        return y


@pytest.mark.parametrize(
    "wrap",
    [lambda w: [w], lambda w: {"w": w}, lambda w: ([w],), lambda w: {"w": [w]}],
    ids=["list", "dict", "nested", "both"],
)
def test_a_parameter_that_is_handed_on_in_a_container(wrap: Callable[[Tensor], object]) -> None:
    module = Hands(wrap)
    pg = PatchableGraph(module, X)
    with torch.no_grad(), pg.patch({"w": AddPatch(value=1.0)}, on_missing="raise"):
        for _ in range(2):
            assert torch.equal(pg(X), X @ (module.w + 1) + (module.w + 1).sum())


class Keeps(nn.Module):
    """Has its weight from another module, in a list that torch does not look into."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.kept = [weight]

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.kept[0]


class Shares(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.arange(9.0).view(3, 3))
        self.keeps = nn.Sequential(Keeps(self.w))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.keeps(x), x @ self.w, self.keeps(x)


def test_a_module_that_has_the_parameter_by_a_way_of_its_own() -> None:
    module = Shares()
    w = module.w.detach()
    pg = PatchableGraph(module, X)
    with torch.no_grad(), pg.patch({"w": AddPatch(value=1.0)}, on_missing="raise"):
        for _ in range(2):
            # The first call comes before the module itself has read the parameter.
            assert all(torch.equal(found, X @ (w + 1)) for found in pg(X))
