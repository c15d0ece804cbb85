"""Every kind of patch against what hooks and hand-written forwards compute."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from libgraphpatch import AddPatch, CustomPatch, Patch, PatchableGraph, ProbePatch, RecordPatch, ReplacePatch, ZeroPatch
from nets import Block, Function, Net, name_of, same


def hooked(module: torch.nn.Module, hook: Callable[[Tensor], Any], call: Callable[[], Tensor]) -> Tensor:
    handle = module.register_forward_hook(lambda module, args, output: hook(output))
    try:
        return call()
    finally:
        handle.remove()


SLICES: list[Any] = [
    0,
    -1,
    (slice(None), 1),
    (..., -1),
    slice(1, None),
    slice(None, None, 2),
    (slice(0, 2), slice(1, 4, 2)),
    (None, 1),
    (..., None),
    ...,
    torch.tensor([0, 2]),
    (torch.tensor([0, 2]), torch.tensor([1, 3])),
    [0, 1],
    (slice(None), [0, 3]),
    torch.tensor([True, False, True]),
    [True, False, False],
    numpy.int64(2),
    numpy.array([0, 2]),
    torch.tensor(1),
    (torch.tensor([[0], [2]]), torch.tensor([1, 3])),
    torch.rand(3, 4, generator=torch.Generator().manual_seed(0)) > 0.5,
    True,
    [],
    (slice(5, 9),),
    (0, 1),
    (),
    range(2),
]


@pytest.mark.parametrize("index", SLICES, ids=name_of)
@pytest.mark.parametrize("path", ["blocks_0.output", "blocks_0.add", "blocks_1.x"])
def test_slices_mean_what_they_mean_to_a_tensor(index: Any, path: str) -> None:
    net, x = Net(), torch.randn(3, 4)
    pg = PatchableGraph(net, x)

    def write(value: Any) -> Callable[[Tensor], Tensor]:
        def change(output: Tensor) -> Tensor:
            output = output.clone()
            output[index] = value
            return output

        return change

    def add(output: Tensor) -> Tensor:
        output = output.clone()
        output[index] += 0.5
        return output

    for patch, change in [
        (ZeroPatch(slice=index), write(0)),
        (ReplacePatch(value=7, slice=index), write(7)),
        (AddPatch(value=0.5, slice=index), add),
    ]:
        with pg.patch({path: patch}):
            patched = pg(x)
        assert same(patched, hooked(net.blocks[0], change, lambda: net(x))), patch


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(4),
        torch.arange(3.0)[:, None],
        torch.tensor(2),
        torch.ones(1, 1, dtype=torch.float64),
        3,
        0.25,
        True,
        numpy.ones((3, 4)),
        numpy.float32(2),
    ],
    ids=name_of,
)
def test_values_broadcast_and_convert_as_in_an_assignment(value: Any) -> None:
    net, x = Net(), torch.randn(3, 4)
    pg = PatchableGraph(net, x)
    tensor = torch.as_tensor(value)

    def add(output: Tensor) -> Tensor:
        return output.clone().add_(tensor)

    with pg.patch({"blocks_0.output": AddPatch(value=value)}):
        patched = pg(x)
    assert same(patched, hooked(net.blocks[0], add, lambda: net(x)))
    with pg.patch({"blocks_0.output": ReplacePatch(value=value)}):
        assert same(pg(x), net.blocks[1](torch.zeros(3, 4).copy_(tensor)))


def test_probes_before_and_after_others_in_the_order_given() -> None:
    net, x = Net(), torch.randn(3, 4)
    pg = PatchableGraph(net, x)
    before, between, after = ProbePatch(), ProbePatch(), ProbePatch()
    assert before.activation is None
    with pg.patch({pg.graph.blocks_0.output: [before, ZeroPatch(slice=0), between, AddPatch(value=1.0), after]}):
        patched = pg(x)
    output = net.blocks[0](x)
    assert same(before.activation, output.detach()) and not before.activation.requires_grad
    output = output.clone()
    output[0] = 0
    assert same(between.activation, output.detach())
    assert same(after.activation, output.detach() + 1)
    assert same(patched, net.blocks[1](output + 1))


def test_sets_nest() -> None:
    net, x = Net(), torch.randn(3, 4)
    pg, block = PatchableGraph(net, x), net.blocks[1]
    inner = pg.patch({"blocks_0.output": AddPatch(value=2.0)})
    with pg.patch({"blocks_0.output": ReplacePatch(value=3.0)}):
        with inner:
            assert same(pg(x), block(torch.full((3, 4), 5.0)))
            with inner:
                assert same(pg(x), block(torch.full((3, 4), 7.0)))
        assert same(pg(x), block(torch.full((3, 4), 3.0)))
    with inner:
        assert same(pg(x), block(net.blocks[0](x) + 2))
    assert same(pg(x), net(x))


def test_a_block_that_ends_by_an_exception_takes_its_patches_along() -> None:
    net, x = Net(), torch.randn(3, 4)
    pg = PatchableGraph(net, x)
    with pytest.raises(KeyError, match="mine"):
        with pg.patch({"output": ZeroPatch()}):
            raise KeyError("mine")
    assert same(pg(x), net(x))


def test_a_set_that_cannot_be_entered_leaves_nothing_behind() -> None:
    net, x = Net(), torch.randn(3, 4)
    pg = PatchableGraph(net, x)
    with pytest.raises(ValueError):
        with pg.patch({"output": [ZeroPatch(), AddPatch(value=object())]}):  # type: ignore[arg-type]
            pass
    assert same(pg(x), net(x))


def test_records_keep_every_value_or_the_first_ones() -> None:
    net, xs = Net(), [torch.randn(size, 4) for size in (1, 2, 3)]
    pg = PatchableGraph(net, xs[0])
    every, two = RecordPatch(), RecordPatch(limit=2)
    with pg.patch({"blocks_0.output": [every, two]}):
        for x in xs:
            pg(x)
    expected = [net.blocks[0](x).detach() for x in xs]
    assert len(every.activations) == 3 and all(map(same, every.activations, expected))
    assert len(two.activations) == 2


def test_what_a_probe_keeps_is_its_own() -> None:
    pg = PatchableGraph(Function(lambda x: (x * 2).add_(1)), x := torch.randn(3, 4))
    with pg.patch({"mul": (probe := ProbePatch()), "add_": ZeroPatch()}):
        pg(x)
    assert same(probe.activation, x * 2)


def test_functions_of_ones_own() -> None:
    net, x = Net(), torch.randn(3, 4)
    pg = PatchableGraph(net, x)
    with pg.patch({"blocks_0.output": CustomPatch(custom_op=lambda t: t.clamp(-0.1, 0.1), slice=(slice(None), 0))}):
        patched = pg(x)
    output = net.blocks[0](x).clone()
    output[:, 0] = output[:, 0].clamp(-0.1, 0.1)
    assert same(patched, net.blocks[1](output))

    class Doubled(Patch[Tensor]):
        def op(self, original_output: Tensor) -> Tensor:
            return original_output.mul_(2)

    with pg.patch({"blocks_0.output": Doubled(), "blocks_0.x": Doubled()}):
        assert same(pg(x), net.blocks[1](net.blocks[0](x * 2) * 2))


def test_a_function_may_run_the_model() -> None:
    net, x = Net(), torch.randn(3, 4)
    pg = PatchableGraph(net, x)
    seen = []

    def lens(value: Tensor) -> Tensor:
        seen.append(net.blocks[1](value).detach())
        return value

    with pg.patch({"blocks_0.output": CustomPatch(custom_op=lens), "blocks_1.output": ZeroPatch()}):
        assert not pg(x).any()
    assert same(seen[0], net(x).detach())
    assert pg.notes == []


def test_patches_hold_in_some_runs_of_the_block() -> None:
    net, x = Net(), torch.randn(3, 4)
    pg = PatchableGraph(net, x)
    for runs, patched in {"0": [0], "1": [1], "2..": [2, 3], "1..3": [1, 2], "..2": [0, 1], "..": [0, 1, 2, 3]}.items():
        with pg.patch({"output": ZeroPatch()}, runs=runs):
            assert [run for run in range(4) if not pg(x).any()] == patched
    with pytest.raises(ValueError, match="expected the number of a run"):
        with pg.patch({"output": ZeroPatch()}, runs="first"):
            pass


def test_gradients_go_through_patches_and_to_their_values() -> None:
    net = Net()
    pg = PatchableGraph(net, torch.randn(3, 4))
    results = []
    for run in range(2):
        torch.manual_seed(1)
        x, value = torch.randn(3, 4, requires_grad=True), torch.randn(4, requires_grad=True)
        if run == 0:
            tanh = CustomPatch(custom_op=torch.tanh)
            patches = {
                "blocks_0.output": [ProbePatch(), AddPatch(value=value, slice=1), tanh],
                "blocks_1.up.weight": ZeroPatch(slice=0),
                "blocks_1.sigmoid": ReplacePatch(value=value[0], slice=(0, 0)),
            }
            with pg.patch(patches):
                y = pg(x)
        else:
            hidden = net.blocks[0](x).clone()
            hidden[1] += value
            hidden, block = torch.tanh(hidden), net.blocks[1]
            weight = block.up.weight.clone()
            weight[0] = 0
            gate = torch.sigmoid(torch.nn.functional.linear(hidden, weight, block.up.bias)).clone()
            gate[0, 0] = value[0]
            y = hidden + block.down(gate * 2)
        net.zero_grad()
        y.square().sum().backward()
        results.append([y, x.grad, value.grad, *[parameter.grad for parameter in net.parameters()]])
    assert all(map(same, *results))


def test_gradient_descent_on_the_value_of_an_add_lowers_the_loss() -> None:
    block, x = Block(), torch.randn(3, 4)
    pg, target = PatchableGraph(block, x), torch.randn(3, 4)
    delta = torch.zeros(6, requires_grad=True)
    optimizer, losses = torch.optim.Adam([delta], lr=0.1), []
    for _ in range(40):
        with pg.patch({"up.output": AddPatch(value=delta, slice=(slice(None), slice(None)))}):
            loss = (pg(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0] and losses[-1] == min(losses)


def test_nothing_stays_behind() -> None:
    net, x = Net(), torch.randn(3, 4)
    alive: list[weakref.ref[Any]] = []
    for _ in range(3):
        pg = PatchableGraph(net, x)
        for _ in range(5):
            value = torch.randn(4, requires_grad=True)
            probe, custom = ProbePatch(), CustomPatch(custom_op=lambda t, value=value: t * value)
            with pg.patch({"blocks_0.output": [AddPatch(value=value), custom, probe], "x": ReplacePatch(value=value)}):
                y = pg(x)
            alive += map(weakref.ref, (value, probe, custom, probe.activation, y))
        alive += [weakref.ref(pg), weakref.ref(pg._recorder.root)]
    del pg, value, probe, custom, y
    gc.collect()
    assert [left() for left in alive if left() is not None] == []
