"""Values are looked at without running code of theirs: proxies, lazy objects, and dataclasses that compute fields."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import PatchableGraph, ZeroPatch

X = torch.tensor([[1.0, -2.0, 3.0]])
asked: list[str] = []


class Proxy:
    """Says that it is a dict, and has nothing of one."""

    @property
    def __class__(self) -> Any:
        asked.append("class")
        return dict

    def __getattr__(self, name: str) -> Any:
        asked.append(name)
        raise AttributeError(name)


@dataclasses.dataclass
class Computes:
    given: Tensor
    late: Any = dataclasses.field(init=False)


def _late(self: Computes) -> Tensor:
    asked.append("late")
    return self.given * 3


Computes.late = property(_late)


@dataclasses.dataclass(slots=True)
class Slots:
    given: Tensor
    unset: Any = dataclasses.field(init=False)


@dataclasses.dataclass(frozen=True)
class Frozen:
    given: Tensor
    named: str = "a"

    def __copy__(self) -> Frozen:
        raise AssertionError("a patch copies without calling this")


@dataclasses.dataclass(init=False)
class Elsewhere:
    """Keeps its fields in a dict, as tensorclasses do."""

    given: Tensor

    def __init__(self, given: Tensor) -> None:
        object.__setattr__(self, "_held", {"given": given})

    def __getattr__(self, name: str) -> Any:
        asked.append(name)
        return object.__getattribute__(self, "_held")[name]


class Net(nn.Module):
    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make, self.inner = make, nn.Identity()

    def forward(self, x: Tensor) -> Any:
        return self.inner(self.make(x))


@pytest.mark.parametrize("make", [lambda _: Proxy(), lambda _: [Proxy()], lambda x: {"a": (x, Proxy())}])
def test_proxies_are_leaves(make: Any) -> None:
    pg = PatchableGraph(Net(make), X)
    asked.clear()
    pg(X)
    with pg.patch({"x": ZeroPatch()}):
        pg(X)
    assert asked == []
    assert "Proxy" in str(pg.graph)


def test_a_mock_of_a_dict() -> None:
    mock = MagicMock(spec=dict)
    pg = PatchableGraph(Net(lambda x: [x * 2, mock]), X)
    with pg.patch({"output|sub_0": ZeroPatch()}):
        patched, same = pg(X)
    assert not patched.any() and same is mock
    mock.assert_not_called()
    assert not mock.mock_calls


def test_a_computed_field_is_no_node() -> None:
    pg = PatchableGraph(Net(Computes), X)
    asked.clear()
    with pg.patch({"output|given": ZeroPatch()}):
        result = pg(X)
    assert asked == []
    assert torch.equal(result.late, torch.zeros_like(X)) and type(result) is Computes
    with pytest.raises(KeyError, match="late"):
        pg.patch({"output|late": ZeroPatch()})


def test_slots_and_frozen_objects_are_patched_in_copies() -> None:
    made: list[Any] = []
    for kind in (Slots, Frozen):

        def make(x: Tensor, kind: Any = kind) -> Any:
            made.append(kind(x * 2))
            return made[-1]

        pg = PatchableGraph(Net(make), X)
        with pg.patch({"inner.output|given": ZeroPatch()}):
            result = pg(X)
        assert type(result) is kind and not result.given.any()
        assert torch.equal(made[-1].given, X * 2)
    assert result.named == "a"


def test_fields_that_are_kept_elsewhere() -> None:
    """Nothing tells where: the object is a leaf, and a patch of its fields is refused."""
    pg = PatchableGraph(Net(Elsewhere), X)
    asked.clear()
    pg(X)
    assert asked == []
    assert "Elsewhere" in str(pg.graph)
    with pytest.raises(KeyError, match="given"):
        pg.patch({"output|given": ZeroPatch()})
