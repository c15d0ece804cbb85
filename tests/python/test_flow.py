"""Runs that end early, and calls that are skipped."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph, ProbePatch, SkipPatch, StopPatch, Stopped, ZeroPatch


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Linear(4, 4)
        self.calls = 0

    def forward(self, hidden: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor | None]:
        self.calls += 1
        return torch.relu(self.mlp(hidden)) * scale + hidden, hidden


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.h = nn.ModuleList(Block() for _ in range(3))
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.h:
            x = self.norm(block(x)[0])
        return x


X = torch.randn(2, 4)


@pytest.fixture
def pg() -> Iterator[PatchableGraph]:
    pg = PatchableGraph(Net(), X)
    for block in pg.module.h:
        block.calls = 0
    yield pg
    assert not any("forward" in vars(module) for module in pg.module.modules())


def by_hand(net: Net, x: Tensor, skipped: set[int]) -> Tensor:
    for number, block in enumerate(net.h):
        x = net.norm(x if number in skipped else block(x)[0])
    return x


# --- StopPatch ---


@pytest.mark.parametrize("path", ["h_1.output|sub_0", "h_1.mlp.linear", "h_1.hidden", "h_1.mlp.weight"])
def test_nothing_is_computed_behind_a_stop(pg: PatchableGraph, path: str) -> None:
    went_on = False
    with pg.patch({path: [probe := ProbePatch(), StopPatch()]}) as patched:
        pg(X)
        went_on = True
    assert not went_on and isinstance(probe.activation, Tensor)
    assert [block.calls for block in pg.module.h] == [1, int(path != "h_1.hidden"), 0]
    assert patched.counts[path][0].applied == 1
    assert torch.equal(pg(X), by_hand(pg.module, X, set()))


def test_a_stop_is_swallowed_by_its_own_block_only(pg: PatchableGraph) -> None:
    with pg.patch({"h_0.mlp.output": StopPatch()}):
        with pg.patch({"h_2.mlp.output": ZeroPatch()}):
            pg(X)
        pytest.fail("the inner block swallowed it")
    with pg.patch({"h_0.mlp.output": StopPatch()}):
        with pytest.raises(Stopped) as stopped:
            pg(X)
    assert isinstance(stopped.value.patch, StopPatch)


def test_errors_are_not_swallowed(pg: PatchableGraph) -> None:
    with pytest.raises(ZeroDivisionError), pg.patch({"h_2.mlp.output": StopPatch()}):
        raise ZeroDivisionError
    with pytest.raises(ValueError, match="StopPatch"):
        pg.patch({"h_2.mlp.output": StopPatch()}, on_error="skip")


# --- SkipPatch ---


@pytest.mark.parametrize("path", ["h_1", "h_1.output"])
def test_a_call_that_returns_an_input(pg: PatchableGraph, path: str) -> None:
    with pg.patch({path: SkipPatch(value="hidden")}) as patched:
        assert torch.equal(pg(X), by_hand(pg.module, X, {1}))
    assert pg.module.h[1].calls == 0 and patched.counts["h_1"][0].applied == 1
    assert torch.equal(pg(X), by_hand(pg.module, X, set()))


def test_all_calls_of_a_pattern(pg: PatchableGraph) -> None:
    with pg.patch({"h_*": SkipPatch(value="hidden")}):
        assert torch.equal(pg(X), by_hand(pg.module, X, {0, 1, 2}))
    assert not any(block.calls for block in pg.module.h)


def test_a_value_and_a_function(pg: PatchableGraph) -> None:
    given = torch.randn(2, 4)
    with pg.patch({"h_2": SkipPatch(value=given)}):
        assert torch.equal(pg(X), pg.module.norm(given))
    with pg.patch({"h_2": SkipPatch(value=lambda hidden: (hidden * 2, None))}):
        patched = pg(X)
    hidden = pg.module.norm(pg.module.h[1](pg.module.norm(pg.module.h[0](X)[0]))[0])
    assert torch.equal(patched, pg.module.norm(hidden * 2))


def test_only_the_call_that_is_meant(pg: PatchableGraph) -> None:
    with pg.patch({"norm_1": SkipPatch(value="input")}):
        patched = pg(X)
    x = pg.module.norm(pg.module.h[0](X)[0])
    assert torch.equal(patched, pg.module.norm(pg.module.h[2](pg.module.h[1](x)[0])[0]))


def test_patches_at_what_is_skipped(pg: PatchableGraph) -> None:
    patches = {
        "h_0.hidden": AddPatch(value=1.0),
        "h_0": SkipPatch(value="hidden"),
        "h_0.output|sub_0": ZeroPatch(slice=0),
    }
    with pg.patch(patches):
        patched = pg(X)
    x = X + 1.0
    x[0] = 0
    net = pg.module
    assert torch.equal(patched, net.norm(net.h[2](net.norm(net.h[1](net.norm(x))[0]))[0]))
    with pytest.warns(UserWarning, match="never matched: h_0.mlp.output"):
        with pg.patch({"h_0": SkipPatch(value="hidden"), "h_0.mlp.output": ZeroPatch()}):
            pg(X)


def test_runs_threads_and_failures(pg: PatchableGraph) -> None:
    skipped, whole = by_hand(pg.module, X, {1}), by_hand(pg.module, X, set())
    with pg.patch({"h_1": SkipPatch(value="hidden")}, runs="1"):
        assert torch.equal(pg(X), whole) and torch.equal(pg(X), skipped) and torch.equal(pg(X), whole)
    others: list[Tensor] = []
    with pg.patch({"h_1": SkipPatch(value="hidden")}, this_thread=True):
        thread = threading.Thread(target=lambda: others.append(pg(X)))
        thread.start()
        thread.join()
        assert torch.equal(pg(X), skipped) and torch.equal(others[0], whole)

    def refuse(module: nn.Module, inputs: object) -> None:
        raise ZeroDivisionError

    # If a call that would be skipped fails before, the next call must not be skipped instead.
    with pg.patch({"h_1": SkipPatch(value="hidden")}, runs="0"):
        with pg.module.h[1].register_forward_pre_hook(refuse), pytest.raises(ZeroDivisionError):
            pg(X)
        assert torch.equal(pg(X), whole)


def test_blocks_in_one_another(pg: PatchableGraph) -> None:
    other = torch.randn(2, 4)
    with pg.patch({"h_1": SkipPatch(value="hidden")}):
        with pg.patch({"h_1": SkipPatch(value=other)}):
            inner = pg(X)
        outer = pg(X)
    net = pg.module
    assert torch.equal(inner, net.norm(net.h[2](net.norm(other))[0])) and torch.equal(outer, by_hand(net, X, {1}))


def test_gradients_go_around_a_skipped_module(pg: PatchableGraph) -> None:
    x = X.clone().requires_grad_()
    with pg.patch({"h_1": SkipPatch(value="hidden")}):
        (patched,) = torch.autograd.grad(pg(x)[:, 0].sum(), x)
    (expected,) = torch.autograd.grad(by_hand(pg.module, x, {1})[:, 0].sum(), x)
    assert torch.equal(patched, expected)


def test_what_cannot_be_skipped(pg: PatchableGraph) -> None:
    with pytest.raises(KeyError, match="no node `nothing`"):
        pg.patch({"nothing": SkipPatch(value="hidden")})
    with pytest.raises(KeyError, match="h_1.mlp.linear: a SkipPatch stands at the call of a module"):
        pg.patch({"h_1.mlp.linear": SkipPatch(value=0)})
    with pytest.raises(ValueError, match="has no such argument; it has hidden, scale"):
        pg.patch({"h_1": SkipPatch(value="hiden")})
    with pytest.raises(KeyError, match=r"'\*.x_\*' matches no call of a module"):
        pg.patch({"*.x_*": SkipPatch(value="hidden")})
