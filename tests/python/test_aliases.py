"""Names of local variables as second names of what is assigned to them, as the package graphpatch has them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import PatchableGraph, ProbePatch, ZeroPatch

X = torch.linspace(-1, 1, 6).reshape(2, 3)


def doubled(value: Tensor) -> Tensor:
    inner = value * 2
    return inner + 1


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc(x).relu() * 2
        return hidden.sum(0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = Branch()

    def forward(self, x: Tensor) -> Tensor:
        x = x + 1
        other = doubled(
            x,
        )
        x = self.branch(other)
        first, second = x.chunk(2)[0], x.sigmoid()
        x = second.tanh()
        z = y = x * 3
        return first.sum() + z + y


@pytest.fixture
def pg() -> PatchableGraph:
    torch.manual_seed(0)
    return PatchableGraph(Net(), X)


def test_a_variable_names_what_is_assigned_to_it_last(pg: PatchableGraph) -> None:
    meant = {"x_1": "add", "inner": "mul", "other": "add_1", "branch.hidden": "branch.mul", "x_2": "tanh"}
    for alias, path in meant.items():
        assert str(pg.graph[alias]) == path and alias in pg.graph
    assert str(pg.graph.branch.hidden) == "branch.mul" and str(pg.graph.other) == "add_1"
    # Neither of these is a variable's value as one operation computes it.
    for other in ("first", "second", "z", "y", "x_3", "branch.fc.hidden", "branch.x_1"):
        assert other not in pg.graph


def test_a_patch_at_a_variable_is_one_at_its_node(pg: PatchableGraph) -> None:
    with (
        torch.no_grad(),
        pg.patch({"branch.hidden": [ZeroPatch(), probe := ProbePatch()], "x_1": (one := ProbePatch())}),
    ):
        patched = pg(X)
    with torch.no_grad(), pg.patch({"branch.mul": ZeroPatch()}):
        assert pg(X).equal(patched)
    assert not probe.activation.any() and one.activation.equal(X + 1)


def test_completion_and_errors_offer_them(pg: PatchableGraph) -> None:
    assert {"x_1", "other", "branch.hidden"} <= {*pg.graph._ipython_key_completions_()}
    assert "hidden" in pg.graph.branch._ipython_key_completions_()
    with pytest.raises(AttributeError, match="by local variables, x_1, inner, other, x_2"):
        pg.graph.nope
    with pytest.raises(KeyError, match="by local variables: branch.hidden"), pg.patch({"branch.hiden": ZeroPatch()}):
        pass


def test_a_variable_of_which_it_is_not_certain_is_none() -> None:
    """What takes elements apart, or computes nothing, has a number in the package graphpatch, but no operation here."""

    class Taken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            one, two = x.chunk(2)
            one = one * 2
            two = two.contiguous()
            three = (one + two).contiguous()
            three = three.tanh()
            four = three.exp()
            return four + two.sigmoid()

    pg = PatchableGraph(Taken(), X)
    assert str(pg.graph.four) == "exp"
    assert not any(name in pg.graph for name in ("one", "one_1", "two", "two_1"))
    assert str(pg.graph.three_1) == "tanh"


def test_a_node_comes_before_an_alias() -> None:
    class Same(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            tanh = x.sigmoid()
            return tanh + x.tanh()

    pg = PatchableGraph(Same(), X)
    assert str(pg.graph.tanh) == "tanh" and str(pg.graph["tanh_1"]) == "sigmoid"
    with pg.patch({"tanh_1": ZeroPatch()}):
        assert pg(X).equal(X.tanh())
