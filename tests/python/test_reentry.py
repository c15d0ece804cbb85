"""Operations, finalizers and functions of patches that call a model while a value is being described."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, CustomPatch, PatchableGraph, ProbePatch, ZeroPatch
from nets import define, names


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def calling() -> Iterator[dict[str, Any]]:
    """Operators whose bodies call modules: one, two of them, one inside the other, and one that fails."""
    library = torch.library.Library("housecalls", "FRAGMENT")
    held: dict[str, Any] = {"inner": nn.Linear(3, 3), "other": nn.Linear(3, 3)}

    def once(x: Tensor) -> Tensor:
        return held["inner"](x) + 1

    def twice(x: Tensor) -> Tensor:
        return held["inner"](x) + held["other"](x)

    def nested(x: Tensor) -> Tensor:
        return torch.ops.housecalls.once(held["other"](x)) * 2

    def fails(x: Tensor) -> Tensor:
        held["inner"](x)
        raise ValueError("as it must")

    for function in (once, twice, nested, fails):
        define(library, f"{function.__name__}(Tensor x) -> Tensor", function)
    yield held
    library._destroy()


class Outer(nn.Module):
    def __init__(self, held: dict[str, Any], name: str) -> None:
        super().__init__()
        self.inner, self.other, self.name = held["inner"], held["other"], name

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(x)
        z = getattr(torch.ops.housecalls, self.name)(y)
        return z * 3


@pytest.mark.parametrize(
    "name, inner", [("once", ["inner"]), ("twice", ["inner", "other"]), ("nested", ["other", "inner"])]
)
def test_an_operation_may_call_modules(calling: dict[str, Any], name: str, inner: list[str]) -> None:
    module, x = Outer(calling, name), torch.randn(2, 3)
    expected, y = module(x), torch.relu(x)
    pg = PatchableGraph(module, x)
    assert torch.equal(pg(x), expected)
    found = names(pg.graph)
    assert found.count("output") == 1 and found.count(name) == 1 and found[-1] == "output", found
    assert [found.count(one) for one in inner] == [1] * len(inner), found
    result = getattr(torch.ops.housecalls, name)(y)
    with pg.patch({name: [probe := ProbePatch(), AddPatch(value=1.0)], "mul": (mul := ProbePatch())}):
        assert torch.equal(pg(x), (result + 1) * 3)
        assert torch.equal(probe.activation, result) and torch.equal(mul.activation, (result + 1) * 3)
    # And the modules inside of it.
    with pg.patch({f"{inner[0]}.output": ZeroPatch()}):
        zeroed = pg(x)
    parameters = list(calling[inner[0]].parameters())
    kept = [parameter.clone() for parameter in parameters]
    for parameter in parameters:
        parameter.zero_()
    assert torch.equal(zeroed, module(x))
    for parameter, value in zip(parameters, kept):
        parameter.copy_(value)
    assert torch.equal(pg(x), expected)


def test_an_operation_that_fails_behind_a_module(calling: dict[str, Any]) -> None:
    class Tries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = calling["inner"]

        def forward(self, x: Tensor) -> Tensor:
            try:
                torch.ops.housecalls.fails(x)
            except ValueError:
                pass
            return torch.relu(x)

    x = torch.randn(2, 3)
    pg = PatchableGraph(Tries(), x)
    assert names(pg.graph) == ["x", "inner", "relu", "output"]
    with pg.patch({"relu": AddPatch(value=2.0)}):
        assert torch.equal(pg(x), torch.relu(x) + 2)


class Finalized:
    """Runs a model when it is finalized."""

    def __init__(self, run: Any) -> None:
        self.run = run
        self.me = self  # a cycle, so that only the garbage collector frees it

    def __del__(self) -> None:
        self.run()


def test_a_finalizer_runs_a_model_while_values_are_described() -> None:
    other, x = nn.Linear(3, 3), torch.randn(2, 3)
    inner = PatchableGraph(other, x)
    ran: list[Tensor] = []
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    expected = module(x)
    thresholds = gc.get_threshold()
    pg = PatchableGraph(module, x)
    tree = repr(pg.graph)
    try:
        for turn in range(30):
            gc.disable()
            Finalized(lambda: ran.append(inner(x)))
            gc.set_threshold(1 + turn, 1, 1)
            gc.enable()
            fresh = PatchableGraph(module, x)
            with fresh.patch({"sub_1.output": (probe := ProbePatch()), "output": AddPatch(value=1.0)}):
                assert torch.equal(fresh(x), expected + 1)
                assert torch.equal(probe.activation, torch.relu(module[0](x)))
            assert repr(fresh.graph) == tree
    finally:
        gc.set_threshold(*thresholds)
        gc.enable()
    gc.collect()
    assert len(ran) == 30 and all(torch.equal(value, other(x)) for value in ran)


def test_a_patches_function_runs_models(calling: dict[str, Any]) -> None:
    other, x = nn.Linear(3, 3), torch.randn(2, 3)
    inner = PatchableGraph(other, x)
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    expected, bare = module(x), other(x)
    pg = PatchableGraph(module, x)

    def function(value: Tensor) -> Tensor:
        with inner.patch({"linear": AddPatch(value=1.0)}):
            assert torch.equal(inner(x), bare + 1)
        return value + other(x)

    with pg.patch({"sub_0.linear": CustomPatch(custom_op=function), "output": AddPatch(value=1.0)}):
        assert torch.equal(pg(x), torch.relu(module[0](x) + bare) + 1)
    assert torch.equal(pg(x), expected)


SOURCE = """
import torch

class Sourced(torch.nn.Module):
    def __init__(self, helper):
        super().__init__()
        self.helper = helper

    def forward(self, x):
        y = torch.relu(x)
        z = torch.sigmoid(y)
        return z * 2
"""


class Loader:
    """Provides a module's source, as a user's importer may do, and runs a model while it does so."""

    def __init__(self, run: Any) -> None:
        self.run, self.asked = run, 0

    def get_source(self, _name: str) -> str:
        self.asked += 1
        if self.asked == 1:
            self.run()
        return SOURCE


@pytest.mark.parametrize("inside", [False, True], ids=["another model", "a module of the same run"])
def test_who_gives_the_source_of_a_line_runs_a_model(inside: bool) -> None:
    helper, x = nn.Linear(3, 3), torch.randn(2, 3)
    other = PatchableGraph(nn.Linear(3, 3), x)
    loader = Loader(lambda: (helper if inside else other)(x))
    file = f"/nowhere/sourced_{inside}.py"
    space: dict[str, Any] = {"__name__": "sourced", "__loader__": loader, "__file__": file}
    exec(compile(SOURCE, file, "exec"), space)
    module = space["Sourced"](helper)
    pg = PatchableGraph(module, x)
    assert loader.asked
    found = names(pg.graph)
    called = "helper" if inside else "Linear"  # the name of the call that the loader makes during this run
    assert [name for name in found if name != called] == ["x", "relu", "sigmoid", "mul", "output"]
    assert found.count(called) == 1
    with pg.patch({"relu": [probe := ProbePatch(), AddPatch(value=1.0)]}):
        assert torch.equal(pg(x), torch.sigmoid(torch.relu(x) + 1) * 2)
    assert torch.equal(probe.activation, torch.relu(x))
