"""Programs are not limited by the library: deep nesting, long lists, values of the program's own classes."""

from __future__ import annotations

import collections
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph, ReplacePatch, ZeroPatch
from libgraphpatch._native import native
from nets import Around


class Innermost(nn.Module):
    """Tells how deep Python's stack is when it runs."""

    depth = 0

    def forward(self, x: Tensor) -> Tensor:
        frame, self.depth = sys._getframe(), 0
        while frame.f_back is not None:
            frame, self.depth = frame.f_back, self.depth + 1
        return x + 1


class CallsForward(nn.Module):
    """Calls ``forward``, and not the module."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner.forward(x)
        return result


def hooked(inner: nn.Module) -> nn.Module:
    module = Around(inner)
    module.register_forward_hook(lambda _module, _args, output: output * 1)
    return module


def backward_hooked(inner: nn.Module) -> nn.Module:
    module = Around(inner)
    module.register_full_backward_hook(lambda _module, _inputs, _outputs: None)
    return module


AROUND = {"called": Around, "hooked": hooked, "backward hooked": backward_hooked, "forward": CallsForward}


def nested(levels: int, around: Callable[[nn.Module], nn.Module] = Around) -> tuple[nn.Module, Innermost]:
    innermost = Innermost()
    module: nn.Module = innermost
    for _ in range(levels):
        module = around(module)
    return module, innermost


@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.parametrize("where", ["add", "output", "x"])
@pytest.mark.parametrize("around", AROUND)
def test_nested_calls_are_as_deep_as_without_us(around: str, where: str) -> None:
    x = torch.ones(2)
    shallow, first = nested(10, AROUND[around])
    deep, second = nested(100, AROUND[around])
    shallow(x), deep(x)
    most = second.depth - first.depth
    if native is None and around != "called":
        most += 4 * (100 - 10)  # without the extension, functions of the package make such a call
    graphs = [PatchableGraph(shallow, x), PatchableGraph(deep, x)]
    assert second.depth - first.depth <= most
    for graph, levels in zip(graphs, (10, 100), strict=True):
        path = ".".join(["inner"] * levels)
        with graph.patch({f"{path}.{where}": ReplacePatch(value=3.0)}, on_missing="raise"):
            assert (graph(x) == (4 if where == "x" else 3)).all()
        with graph.patch(
            {f"{'.'.join(['inner'] * part)}.output": AddPatch(value=1.0) for part in range(1, levels + 1)}
        ):
            assert (graph(x) == 2 + levels).all()
    assert second.depth - first.depth <= most


def test_190_nested_calls() -> None:
    deep, _ = nested(190)
    x = torch.ones(2)
    assert torch.equal(PatchableGraph(deep, x)(x), x + 1)


class Counts(nn.Module):
    def forward(self, x: Tensor, numbers: Any) -> tuple[Tensor, Any]:
        return x * len(numbers), numbers


def test_a_long_list_of_numbers_is_one_leaf() -> None:
    numbers = list(range(200_000))
    x = torch.ones(2)
    pg = PatchableGraph(Counts(), x, numbers)
    assert "├─numbers: list\n" in repr(pg.graph) and "└─sub_1: list" in repr(pg.graph)
    with pg.patch({"x": AddPatch(value=1.0), "output|sub_0": AddPatch(value=1.0)}):
        out, same = pg(x, numbers)
    assert same is numbers and torch.equal(out, x * 400_000 + 1)


@pytest.mark.parametrize(
    "numbers",
    [
        {number: number for number in range(2000)},
        {str(number): None for number in range(2000)},
        [[number] for number in range(2000)],
        [list(range(100)) for _ in range(100)],
        {"ids": [(number, 1.5) for number in range(1000)]},
    ],
    ids=["dict", "dict of None", "lists", "short lists", "pairs in a dict"],
)
def test_many_numbers_in_any_containers_are_one_leaf(numbers: Any) -> None:
    x = torch.ones(2)
    kind = type(numbers).__name__
    pg = PatchableGraph(Counts(), x, numbers)
    assert f"├─numbers: {kind}\n" in repr(pg.graph) and f"└─sub_1: {kind}" in repr(pg.graph)
    with pg.patch({"x": AddPatch(value=1.0), "output|sub_0": AddPatch(value=1.0)}):
        out, same = pg(x, numbers)
    assert same is numbers and torch.equal(out, x * 2 * len(numbers) + 1)
    with pg.patch({"x": AddPatch(value=1.0)}):
        assert pg(numbers=numbers, x=x)[1] is numbers


def test_the_only_input_may_be_a_long_list() -> None:
    pg = PatchableGraph(nn.Sequential(nn.Identity()), list(range(2000)))
    assert "├─input: list\n" in repr(pg.graph)


def test_a_long_list_with_a_tensor_keeps_its_elements() -> None:
    x = torch.ones(2)
    pg = PatchableGraph(Counts(), x, [*range(1500), x])
    with pg.patch({"numbers|sub_1500": ZeroPatch()}):
        _, numbers = pg(x, [*range(1500), x])
    assert numbers[:1500] == list(range(1500)) and not numbers[1500].any()


class Tagged(tuple):  # type: ignore[type-arg]
    def __new__(cls, tag: str, *elements: Any) -> Tagged:
        made = super().__new__(cls, elements)
        made.tag = tag
        return made


class Stack(list):  # type: ignore[type-arg]
    def __init__(self, tag: str, elements: list[Any]) -> None:
        super().__init__(elements)
        self.tag = tag


Point = collections.namedtuple("Point", "left right")


class Ordered(Point):
    def __new__(cls, both: tuple[Any, Any]) -> Ordered:
        return super().__new__(cls, *both)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: Tagged("a", x, 1),
        lambda x: Stack("a", [x, 1]),
        lambda x: Ordered((x, 1)),
        lambda x: torch.max(x[None], 0),
    ],
    ids=["tuple", "list", "named tuple", "torch's"],
)
def test_containers_with_a_constructor_of_their_own(make: Any) -> None:
    class Makes(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return make(x + 1)

    x = torch.ones(2)
    pg = PatchableGraph(Makes(), x)
    with pg.patch({"output|sub_0": ZeroPatch()}):
        out = pg(x)
    assert type(out) is type(make(x)) and not out[0].any()
    assert getattr(out, "tag", "a") == "a"


@pytest.mark.parametrize("key", ["a\0b", "lone \ud800", "", "a.b", 7])
def test_keys_of_any_text(key: Any) -> None:
    class Keyed(nn.Module):
        def forward(self, x: Tensor) -> dict[Any, Tensor]:
            return {key: x + 1, "other": x}

    x = torch.ones(2)
    pg = PatchableGraph(Keyed(), x)
    with pg.patch({"output|other": ZeroPatch()}):
        out = pg(x)
    assert list(out) == [key, "other"] and torch.equal(out[key], x + 1) and not out["other"].any()


def test_a_run_that_begins_where_the_stack_is_full_raises_as_python_does() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    x = torch.ones(1, 2)
    pg = PatchableGraph(model, x)

    def below(depth: int) -> Any:
        return pg(x) if depth == 0 else below(depth - 1)

    limit, refused = sys.getrecursionlimit(), 0
    with pg.patch({"output": ZeroPatch()}):
        for depth in range(limit - 150, limit):
            try:
                below(depth)
            except RecursionError:  # no other error
                refused += 1
        assert refused and not pg(x).any()
