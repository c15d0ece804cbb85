"""`first_divergence` names the first node at which two models, or two forms of one, part."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph, PatchError
from nets import Function
from transformers_models import build

IDS = torch.tensor([[5, 17, 3, 42]])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.first(x)) + 1
        x = torch.tanh(self.second(x)) * 3
        out: Tensor = self.last(x)
        return out


X = torch.linspace(-1, 1, 24).reshape(3, 8)


def test_two_builds_part_where_one_was_changed() -> None:
    one, other = Net(), Net()
    with torch.no_grad():
        other.second.bias[5] += 0.5
    found = PatchableGraph(one, X).first_divergence(PatchableGraph(other, X), X)
    assert not found and not found.results_agree and found.first is not None
    assert found.first.path == "second.bias" and found.first.largest == pytest.approx(0.5)
    assert "1 of 8 elements differ" in found.first.how and "at [5]" in found.first.how
    parted = [difference.path for difference in found.differences]
    assert {"second.linear", "tanh", "mul", "last.linear", "output"} <= {*parted}
    assert {"x", "first.weight", "sigmoid", "add", "second.weight"} <= {*found.agree}
    assert "second.bias" in repr(found).splitlines()[1] and "norm" in repr(found)
    line = next(difference for difference in found.differences if difference.path == "tanh").code
    assert "torch.tanh(self.second(x))" in line


def test_the_same_twice_also_of_random_numbers() -> None:
    def forward(x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5) + torch.rand_like(x)

    pg = PatchableGraph(Function(forward), X)
    before = torch.get_rng_state()
    found = pg.first_divergence(PatchableGraph(Function(forward), X), X)
    assert found and {"dropout", "rand_like", "add"} <= {*found.agree}, found
    assert torch.equal(torch.get_rng_state(), before)


def test_a_patch_of_one_of_them_holds() -> None:
    pg, other = PatchableGraph(Net(), X), PatchableGraph(Net(), X)
    with other.patch({"sigmoid": AddPatch(value=0.25)}):
        found = pg.first_divergence(other, X)
    assert found.first is not None and found.first.path == "sigmoid" and found.first.largest == pytest.approx(0.25)
    assert pg.first_divergence(other, X)


def test_dtypes_devices_sizes_and_not_a_number() -> None:
    model = Net()
    wide = PatchableGraph(copy.deepcopy(model).double(), X.double())
    pg = PatchableGraph(model, X)
    assert pg.first_divergence(wide, X, inputs_of_other=X.double())
    exact = pg.first_divergence(wide, X, inputs_of_other=X.double(), rtol=0, atol=0)
    assert exact.first is not None and exact.first.other.dtype == torch.float64

    class Times(nn.Module):
        def forward(self, x: Tensor, by: float) -> Tensor:
            return torch.relu(x * by).exp()

    one = PatchableGraph(Times(), X, 1.0)
    found = one.first_divergence(one, X, 1.0, inputs_of_other=(X, math.nan))
    assert found.first is not None and found.first.path == "mul" and found.first.other.nan == 24
    assert found.first.largest == math.inf and math.isnan(found.first.other.mean) and not found.first.one.nan
    shorter = one.first_divergence(one, X, 1.0, inputs_of_other=(X[:2], 1.0))
    assert shorter.first is not None and shorter.first.how == "sizes (3, 8) and (2, 8)"


def test_nodes_that_only_one_has_and_a_choice_of_nodes() -> None:
    class More(Net):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(super().forward(x)) + 7

    pg, other = PatchableGraph(Net(), X), PatchableGraph(More(), X)
    found = pg.first_divergence(other, X)
    assert "relu" in found.only_other and not found.only_one
    assert [difference.path for difference in found.differences] == ["output"]
    assert not found and found.first is not None and "relu" in repr(found)
    chosen = pg.first_divergence(other, X, nodes="*.linear")
    assert [*chosen.agree] == ["first.linear", "second.linear", "last.linear"] and not chosen.only_other
    assert not chosen and not chosen.results_agree and chosen.first is None and "the results do" in repr(chosen)


def test_what_cannot_be_compared() -> None:
    pg = PatchableGraph(Net(), X)

    def nothing_alike(other: Tensor) -> Tensor:
        return other.cos()

    with pytest.raises(ValueError, match="no node in common"):
        pg.first_divergence(PatchableGraph(Function(nothing_alike), X), X, nodes="tanh")
    with pytest.raises(KeyError):
        pg.first_divergence(pg, X, nodes="tanj")
    for bad in (-1.0, math.nan):
        with pytest.raises(ValueError, match="at least 0"):
            pg.first_divergence(pg, X, rtol=bad)


@pytest.fixture
def anew() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def wrong_tanh(anew: None) -> Iterator[None]:
    """A lowering of tanh in Inductor that is wrong by a constant."""
    from torch._inductor import lowering

    operator = torch.ops.aten.tanh.default
    right = lowering.lowerings[operator]

    def wrong(x: Any) -> Any:
        return lowering.lowerings[torch.ops.aten.add.Tensor](right(x), 0.125)

    lowering.lowerings[operator] = wrong
    with torch._inductor.config.patch(force_disable_caches=True):
        yield
    lowering.lowerings[operator] = right


def test_a_miscompiled_operation_is_found_at_its_node(wrong_tanh: None) -> None:
    model = Net()
    eager, compiled = PatchableGraph(model, X), PatchableGraph(torch.compile(model), X)
    found = eager.first_divergence(compiled, X)
    assert found.first is not None and found.first.path == "tanh", found
    assert found.first.largest == pytest.approx(0.125, abs=1e-5)
    assert "first.linear" in found.agree and "second.linear" in found.agree and not found.results_agree
    assert not found.notes


def test_a_compiled_model_that_is_right(anew: None) -> None:
    model = build("gpt2", "sdpa")
    eager = PatchableGraph(model, IDS, use_cache=False)
    compiled = PatchableGraph(torch.compile(model), IDS, use_cache=False)
    found = eager.first_divergence(compiled, IDS, use_cache=False)
    assert found, found
    assert {"transformer.h_0.attn.c_attn.addmm", "transformer.h_1.mlp.act.tanh"} <= {*found.agree}
    assert len(found.agree) > 2 * len(found.only_one)


def test_code_that_cannot_have_taps_is_reported(anew: None) -> None:
    def backend(graph: torch.fx.GraphModule, examples: Any) -> Any:
        if any("gp_" in str(node.target) or "tap" in str(node.target) for node in graph.graph.nodes):
            raise ValueError("this compiler knows no such operators")
        return graph.forward

    model = Net()
    eager, compiled = PatchableGraph(model, X), PatchableGraph(torch.compile(model, backend=backend), X)
    found = eager.first_divergence(compiled, X)
    assert found and any("one by one" in note for note in found.notes), found


def test_errors_of_the_models_pass_through() -> None:
    pg = PatchableGraph(Net(), X)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        pg.first_divergence(pg, X[:, :3])
    with pg.patch({"tanh": AddPatch(value=torch.ones(5))}), pytest.raises((PatchError, RuntimeError)):
        pg.first_divergence(pg, X)
