"""Tests of faults that were once found and fixed, each with similar cases. Values are compared with what PyTorch itself
computes."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, CustomPatch, PatchableGraph, ProbePatch, ZeroPatch


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def names(scope: Any) -> list[str]:
    return [str(node).rsplit(".", 1)[-1] for node in scope]


# --- What is known by an address that can be freed -------------------------------------------------------------------


def define(library: Any, schema: str, function: Any) -> None:
    library.define(schema)
    library.impl(schema.split("(")[0].split(".")[0], function, "CompositeExplicitAutograd")


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


# --- A parameter under a name that has a number ----------------------------------------------------------------------


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


# --- Operations and functions that call modules while a value is being described -------------------------------------


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
