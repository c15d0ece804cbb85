"""A list, dict or object that a module fills for its caller is filled also where a patch stands at one of its elements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph


class Appends(nn.Module):
    def forward(self, x: Tensor, found: list[Any]) -> Tensor:
        found.append(x * 2)
        first: Tensor = found[0]
        return first + 1


class Swaps(nn.Module):
    """Puts elements at other places, takes one out, and replaces one."""

    def forward(self, x: Tensor, found: list[Any]) -> Tensor:
        found.reverse()
        del found[1]
        found[1] = found[1] * 10
        return x + 1


class Lists(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        found = [x + 1, x + 2, x + 3]
        y = self.part(x, found)
        return y, *found


class Puts(nn.Module):
    def forward(self, x: Tensor, found: dict[str, Any]) -> Tensor:
        found["new"] = x * 2
        found["old"] = found["old"] + x
        found["same"], found["number"] = found["kept"], 7
        del found["gone"]
        return found["kept"] + 1


class Dicts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = Puts()

    def forward(self, x: Tensor) -> tuple[Any, ...]:
        found = {"old": x + 1, "kept": x + 2, "gone": x + 3, "number": 5}
        y = self.part(x, found)
        return y, *found.keys(), *found.values()


@dataclass
class State:
    hidden: Tensor
    steps: list[Tensor]


class Advances(nn.Module):
    def forward(self, state: State) -> Tensor:
        state.steps.append(state.hidden)
        state.hidden = state.hidden * 2
        return state.hidden


class States(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = Advances()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        state = State(x + 1, [x + 2])
        y = self.part(state)
        return y, state.hidden, *state.steps


X = torch.tensor([1.0, -2.0])

# The model, the patched path, and what PyTorch gives where 100 is added to that element while the module runs.
CASES: dict[str, tuple[Callable[[], nn.Module], str, Callable[[Tensor], tuple[Any, ...]]]] = {
    "appended": (
        lambda: Lists(Appends()),
        "part.found|sub_0",
        lambda x: (x + 1 + 100 + 1, x + 1, x + 2, x + 3, x * 2),
    ),
    "moved": (lambda: Lists(Swaps()), "part.found|sub_2", lambda x: (x + 1, x + 3, (x + 1) * 10)),
    "moved and replaced": (lambda: Lists(Swaps()), "part.found|sub_0", lambda x: (x + 1, x + 3, (x + 1 + 100) * 10)),
    "put": (
        Dicts,
        "part.found|kept",
        lambda x: (x + 103, "old", "kept", "number", "new", "same", x + 1 + x, x + 2, 7, x * 2, x + 2),
    ),
    "taken out": (
        Dicts,
        "part.found|gone",
        lambda x: (x + 3, "old", "kept", "number", "new", "same", x + 1 + x, x + 2, 7, x * 2, x + 2),
    ),
    "set": (States, "part.state|hidden", lambda x: ((x + 101) * 2, (x + 101) * 2, x + 2, x + 101)),
    "inner list": (States, "part.state|steps.sub_0", lambda x: ((x + 1) * 2, (x + 1) * 2, x + 2, x + 1)),
}


def same(found: tuple[Any, ...], expected: tuple[Any, ...]) -> bool:
    pairs = zip(found, expected, strict=True)
    return all(torch.equal(a, b) if isinstance(b, Tensor) else a == b for a, b in pairs)


@pytest.mark.parametrize("name", CASES)
def test_what_a_module_puts_into_a_container_is_in_the_callers(name: str) -> None:
    make, path, by_hand = CASES[name]
    module = make()
    bare = module(X)
    pg = PatchableGraph(module, X)
    with pg.patch({path: AddPatch(value=-0.0)}, on_missing="raise"):
        assert same(pg(X), bare)
    with pg.patch({path: AddPatch(value=100.0)}, on_missing="raise"):
        for _ in range(2):
            assert same(pg(X), by_hand(X)), pg(X)
    assert same(pg(X), bare)


def test_also_if_the_module_raises() -> None:
    class Raises(nn.Module):
        def forward(self, found: list[Tensor]) -> Tensor:
            found.append(found[0] + 1)
            raise KeyError("after the append")

    class Catches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = Raises()

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            found = [x]
            try:
                self.part(found)
            except KeyError:
                found.append(x * 5)
            return tuple(found)

    pg = PatchableGraph(Catches(), X)
    with pg.patch({"part.found|sub_0": AddPatch(value=100.0)}, on_missing="raise"):
        assert same(pg(X), (X, X + 100 + 1, X * 5))


def test_the_roots_own_caller_gets_it_too() -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor, found: list[Tensor]) -> Tensor:
            found.append(found[0] * 2)
            return x + 0

    given = [X + 1]
    pg = PatchableGraph(Root(), X, [X + 1])
    with pg.patch({"found|sub_0": AddPatch(value=100.0)}, on_missing="raise"):
        pg(X, given)
    assert same(tuple(given), (X + 1, (X + 101) * 2))


class Keeps(nn.Module):
    """Holds what it returns."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.kept: Any = None

    def forward(self, x: Tensor) -> Any:
        if self.kind == "list":
            self.kept = [x + 1, x + 2]
        elif self.kind == "dict":
            self.kept = {"first": x + 1, "second": x + 2}
        else:
            self.kept = State(x + 1, [x + 2])
        return self.kept if self.kind != "inner list" else (x, self.kept)

    def grow(self, x: Tensor) -> None:
        steps = self.kept.steps if isinstance(self.kept, State) else self.kept
        if isinstance(steps, dict):
            steps["grown"] = x * 7
        else:
            steps.append(x * 7)


class Grows(nn.Module):
    def __init__(self, keeps: Keeps) -> None:
        super().__init__()
        self.held = [keeps]

    def forward(self, x: Tensor) -> Tensor:
        self.held[0].grow(x)
        return x + 0


def elements(value: Any) -> list[Tensor]:
    if isinstance(value, State):
        return [value.hidden, *value.steps]
    return list(value.values() if isinstance(value, dict) else value)


class Fills(nn.Module):
    """Puts something into what a module has returned, and lets the module put something into what it holds."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.keeps = Keeps(kind)
        self.grows = Grows(self.keeps)
        self.identity = nn.Identity()

    def forward(self, x: Tensor) -> list[Tensor]:
        returned: Any = self.keeps(x)
        got = returned[1] if isinstance(returned, tuple) else returned
        if isinstance(got, dict):
            got["put"] = x * 5
            got["second"] = got["second"] * 2
        elif isinstance(got, State):
            got.steps.append(x * 5)
            got.hidden = got.hidden * 2
        else:
            got.append(x * 5)
            got[1] = got[1] * 2
        self.identity(x)
        held = elements(self.keeps.kept)
        self.grows(x)
        return [*held, *elements(got), *elements(self.keeps.kept)]


FIRST = {"list": "|sub_0", "dict": "|first", "object": "|steps.sub_0", "inner list": "|sub_1.steps.sub_0"}


@pytest.mark.parametrize("kind", FIRST)
def test_what_is_put_into_a_returned_container_is_in_the_one_that_the_module_holds(kind: str) -> None:
    net = Fills(kind)
    bare = net(X)
    path = "keeps.output" + FIRST[kind]
    pg = PatchableGraph(net, X)
    with pg.patch({path: AddPatch(value=-0.0)}, on_missing="raise"):
        assert same(tuple(pg(X)), tuple(bare))
    with pg.patch({path: AddPatch(value=100.0)}, on_missing="raise"):
        patched = pg(X)
    # Only the caller sees the patch: its own container is the middle one of the three.
    added = {"list": 0, "dict": 0, "object": 1, "inner list": 1}[kind]
    expected = list(bare)
    expected[(len(bare) - 1) // 3 + added] = bare[(len(bare) - 1) // 3 + added] + 100
    assert same(tuple(patched), tuple(expected)), (patched, expected)
    assert same(tuple(pg(X)), tuple(bare))
