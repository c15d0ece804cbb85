"""Code, modules and operators that are made anew, perhaps at a freed address, are seen as they are now."""

import gc
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph, ProbePatch, ZeroPatch
from nets import names


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
