"""More cases like those in test_defects_house.py: code and modules that are created at a freed address, functions of
autograd that call modules, and handlers that run a model in the middle of another model's run."""

import gc
import signal
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, CustomPatch, PatchableGraph, PatchError, ProbePatch, ZeroPatch


def names(scope: Any) -> list[str]:
    return [str(node).rsplit(".", 1)[-1] for node in scope]


# --- What is known by an address that can be freed -------------------------------------------------------------------


class Cell(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


FORWARDS = [
    ("def forward(self, x):\n    y = torch.relu(x)\n    return y * 2", ["x", "relu", "mul", "output"]),
    ("def forward(self, first, *, scale=3):\n    return torch.sigmoid(first) * scale", ["first", "scale", "sigmoid"]),
    ("def forward(self, *many):\n    a, = many\n    return a.abs() + 1", ["many", "abs_1", "add", "output"]),
]


def test_a_forward_is_defined_anew_as_in_a_notebook() -> None:
    x = torch.randn(5)
    module = Cell()
    for turn in range(9):
        source, expected = FORWARDS[turn % len(FORWARDS)]
        space: dict[str, Any] = {"torch": torch}
        exec(compile(source, "<ipython-input>", "exec"), space)
        Cell.forward = space.pop("forward")  # type: ignore[method-assign]
        gc.collect()
        bare = module(x)
        pg = PatchableGraph(module, x)
        assert torch.equal(pg(x), bare)
        assert names(pg.graph)[: len(expected)] == expected, turn
        with pg.patch({"output": AddPatch(value=1.0)}):
            assert torch.equal(pg(x), bare + 1)


class Shows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.child: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.child(x) * 3


def test_a_module_is_made_anew_between_runs() -> None:
    x = torch.randn(2, 4)
    root = Shows()
    made = [lambda: nn.Linear(4, 4), nn.ReLU, lambda: nn.LayerNorm(4), lambda: nn.Sequential(nn.Tanh())]
    pg = PatchableGraph(root, x)
    for turn in range(12):
        root.child = made[turn % len(made)]()
        bare, inner = root(x), root.child(x)
        assert torch.equal(pg(x), bare)
        with pg.patch({"child.output": [probe := ProbePatch(), AddPatch(value=1.0)]}):
            assert torch.equal(pg(x), (inner + 1) * 3)
        assert torch.equal(probe.activation, inner)
        root.child = nn.Identity()
        gc.collect()


class Generates(nn.Module):
    """Calls its modules from a generator, whose frame is freed after each run."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))

    def walk(self, x: Tensor) -> Iterator[Tensor]:
        for layer in self.layers:
            x = layer(x)
            yield x

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([torch.relu(step) for step in self.walk(x)]).sum(0)


def test_modules_that_a_generator_calls() -> None:
    x = torch.randn(2, 3)
    module = Generates()
    bare = module(x)
    pg = PatchableGraph(module, x)
    for _ in range(5):
        with pg.patch({"layers_1.output": ZeroPatch()}):
            first, last = module.layers[0](x), module.layers[2](torch.zeros(2, 3))
            expected = torch.stack([torch.relu(first), torch.zeros(2, 3), torch.relu(last)]).sum(0)
            assert torch.equal(pg(x), expected)
        assert torch.equal(pg(x), bare)
        gc.collect()


def test_a_scripted_module_is_compiled_anew() -> None:
    x = torch.randn(4)

    class Relu(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x) + 1

    class Tanh(nn.Module):
        def forward(self, y: Tensor) -> Tensor:
            return torch.tanh(y) * 2

    for kind, op in [(Relu, "relu"), (Tanh, "tanh")] * 4:
        module = Shows()
        module.child = torch.jit.script(kind())
        bare = module(x)
        pg = PatchableGraph(module, x)
        assert op in names(pg.graph.child)
        with pg.patch({f"child.{op}": ZeroPatch()}):
            assert torch.equal(pg(x), torch.full((4,), 3.0 if op == "relu" else 0.0))
        assert torch.equal(pg(x), bare)
        del module, pg
        gc.collect()


def test_an_operator_becomes_one_that_is_made_of_others() -> None:
    x = torch.randn(5)

    class Turns(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.houseturns.turn(x) * 2

    module = Turns()
    for key in ["CompositeExplicitAutograd", "CompositeImplicitAutograd"] * 3:
        library = torch.library.Library("houseturns", "FRAGMENT")
        library.define("turn(Tensor x) -> Tensor")
        library.impl("turn", lambda x: torch.relu(x) + 1, key)
        bare = module(x)
        pg = PatchableGraph(module, x)
        assert names(pg.graph) == ["x", "turn", "mul", "output"], key
        with pg.patch({"turn": AddPatch(value=1.0)}):
            assert torch.equal(pg(x), bare + 2)
        library._destroy()
        gc.collect()


# --- Functions of autograd that call modules --------------------------------------------------------------------------


class Through(torch.autograd.Function):
    """Calls a module, and passes gradients straight on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: nn.Module) -> Tensor:
        return module(x) * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class CallsThrough(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(Through.apply(x, self.inner))


def test_a_function_of_autograd_calls_a_module() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    module = CallsThrough()
    bare = module(x)
    pg = PatchableGraph(module, x)
    assert names(pg.graph).count("inner") == 1
    expected = torch.relu((module.inner(x) + 1) * 2)
    with pg.patch({"inner.output": AddPatch(value=1.0), "relu": (relu := ProbePatch())}):
        with torch.no_grad():
            assert torch.equal(pg(x), expected)
        assert torch.equal(relu.activation, expected)
        # The function's own backward does not know the patch, so that its gradient would be wrong.
        with pytest.raises(PatchError, match="inside a torch.autograd.Function"):
            pg(x)
    with pg.patch({"inner.output": (inner := ProbePatch()), "relu": AddPatch(value=1.0)}):
        patched = pg(x)
    assert torch.equal(inner.activation, module.inner(x)) and torch.equal(patched, bare + 1)
    (gradient,) = torch.autograd.grad(patched.sum(), x)
    assert torch.equal(gradient, (bare > 0).float())
    assert torch.equal(pg(x), bare)


# --- Handlers that run a model while another one's value is at work ---------------------------------------------------


def test_a_handler_of_a_signal_runs_a_model() -> None:
    x = torch.randn(2, 3)
    other = PatchableGraph(nn.Linear(3, 3), x)
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    pg = PatchableGraph(module, x)
    ran: list[Tensor] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: ran.append(other(x)))

    def function(value: Tensor) -> Tensor:
        signal.raise_signal(signal.SIGUSR1)
        return value + 1

    try:
        with pg.patch({"sub_0.linear": CustomPatch(custom_op=function), "output": AddPatch(value=1.0)}):
            assert torch.equal(pg(x), torch.relu(module[0](x) + 1) + 1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(ran) == 1 and torch.equal(ran[0], other(x))


def test_a_weak_references_callback_runs_a_model() -> None:
    x = torch.randn(2, 3)
    other = PatchableGraph(nn.Linear(3, 3), x)
    ran: list[Tensor] = []
    watched: list[Any] = []

    class Drops(nn.Module):
        """Frees a tensor between two operations; its finalizer runs the other model."""

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(x)
            watched.append(weakref.ref(y, lambda _: ran.append(other(x))))
            y = y + 1
            return y * 2

    pg = PatchableGraph(Drops(), x)
    assert [name for name in names(pg.graph) if name != "Linear"] == ["x", "relu", "add", "mul", "output"]
    for _ in range(3):
        with pg.patch({"relu": AddPatch(value=1.0), "mul": (probe := ProbePatch())}):
            expected = (torch.relu(x) + 2) * 2
            assert torch.equal(pg(x), expected) and torch.equal(probe.activation, expected)
    gc.collect()
    assert ran and all(torch.equal(value, other(x)) for value in ran)
