"""Values that stay in the graph of gradients, and patches of gradients, against autograd's own hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from libgraphpatch import AddPatch, CustomPatch, Patch, PatchableGraph, ProbePatch, ReplacePatch, ZeroPatch
from nets import Net

X = torch.randn(3, 4)
WEIGHTS = torch.randn(3, 4)


@pytest.fixture
def pg() -> PatchableGraph:
    return PatchableGraph(Net(), X)


def by_hand(net: Net, x: Tensor, at: Callable[[Tensor], Tensor]) -> Tensor:
    """The model's output, with ``at`` around the output of ``blocks[0].up``."""
    block = net.blocks[0]
    x = x + block.down(torch.sigmoid(at(block.up(x))) * 2)
    return net.blocks[1](x)


def gradients(net: Net, loss: Tensor) -> list[Tensor]:
    return [*torch.autograd.grad(loss, [*net.parameters()])]


@pytest.mark.parametrize("frozen", [False, True])
def test_a_probe_has_the_gradient_of_its_value(pg: PatchableGraph, frozen: bool) -> None:
    pg.module.requires_grad_(not frozen)
    with pg.patch({"blocks_0.up.output": (probe := ProbePatch(grad=True))}):
        output = pg(X)
    assert probe.grad is None
    (output * WEIGHTS).sum().backward()
    kept: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        kept.append(value.detach().requires_grad_())
        return kept[0]

    expected = by_hand(pg.module, X, keep)
    (expected_gradient,) = torch.autograd.grad((expected * WEIGHTS).sum(), kept)
    assert torch.equal(probe.activation, kept[0]) and torch.equal(probe.grad, expected_gradient)
    assert torch.equal(output, expected)
    if not frozen:
        assert all(parameter.grad is not None for parameter in pg.module.parameters())


def test_what_is_written_later_is_not_in_the_probe(pg: PatchableGraph) -> None:
    with pg.patch({"blocks_0.up.output": [probe := ProbePatch(grad=True), ZeroPatch(slice=(..., 0))]}):
        pg(X).sum().backward()
    assert torch.equal(probe.activation, pg.module.blocks[0].up(X))
    assert not probe.grad[..., 0].any() and probe.grad[..., 1:].any()


def test_a_gradient_that_is_asked_for_by_autograd(pg: PatchableGraph) -> None:
    with pg.patch({"blocks_*.up.output": ProbePatch(grad=True), "blocks_1.output": (last := ProbePatch(grad=True))}):
        output = pg(X)
    assert torch.equal(torch.autograd.grad(output.sum(), last.activation)[0], torch.ones(3, 4))


def test_values_without_gradients_are_refused(pg: PatchableGraph) -> None:
    with (
        torch.no_grad(),
        pg.patch({"output": ProbePatch(grad=True)}),
        pytest.raises(ValueError, match="gradients are off"),
    ):
        pg(X)
    for patch in (ZeroPatch(on="grad"), ProbePatch(on="grad")):
        with torch.no_grad(), pg.patch({"output": patch}), pytest.raises(ValueError, match="no gradient in this run"):
            pg(X)
    with pytest.raises(ValueError, match="'value' or on 'grad'"), pg.patch({"output": ZeroPatch(on="both")}):
        pg(X)
    with pytest.raises(ValueError, match="either"):
        ProbePatch(grad=True, on="grad")


PATCHES: list[Patch[Any]] = [
    ZeroPatch(on="grad"),
    ZeroPatch(on="grad", slice=(slice(None), 1)),
    AddPatch(on="grad", value=2.0, slice=(0, [1, 3])),
    ReplacePatch(on="grad", value=torch.arange(6.0), slice=1),
    CustomPatch(on="grad", custom_op=lambda gradient: gradient.clamp(-0.1, 0.1)),
    CustomPatch(on="grad", custom_op=lambda gradient: gradient * 3, slice=(..., slice(2, 4))),
]


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: f"{type(patch).__name__}-{patch.slice}")
def test_a_patch_of_a_gradient_is_a_hook_of_the_tensor(pg: PatchableGraph, patch: Any) -> None:
    with pg.patch({"blocks_0.up.output": patch}):
        output = pg(X)
    assert torch.equal(output, pg(X)), "values are as they were"
    patched = gradients(pg.module, (output * WEIGHTS).sum())

    def change(gradient: Tensor) -> Tensor:
        changed = gradient.clone()
        if isinstance(patch, CustomPatch):
            key = ... if patch.slice is None else patch.slice
            changed[key] = patch.custom_op(changed[key])
            return changed
        return patch.op(changed)

    def hooked(value: Tensor) -> Tensor:
        value.register_hook(change)
        return value

    expected = gradients(pg.module, (by_hand(pg.module, X, hooked) * WEIGHTS).sum())
    plain = gradients(pg.module, (pg(X) * WEIGHTS).sum())
    assert all(torch.equal(one, other) for one, other in zip(patched, expected, strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(patched, plain, strict=True))


def test_gradients_are_probed_and_patched_in_order(pg: PatchableGraph) -> None:
    """Patches of a gradient act in the order of the backward pass: the last one in the list sees it first."""
    patches = [after := ProbePatch(on="grad"), ZeroPatch(on="grad"), before := ProbePatch(on="grad")]
    with pg.patch({"blocks_1.output": patches}):
        (pg(X) * WEIGHTS).sum().backward()
    assert torch.equal(before.activation, WEIGHTS) and not after.activation.any()


def test_a_gradient_of_another_shape_is_refused(pg: PatchableGraph) -> None:
    with pg.patch({"blocks_1.output": CustomPatch(on="grad", custom_op=lambda gradient: gradient[0])}):
        output = pg(X)
    with pytest.raises(ValueError, match=r"\(3, 4\) cannot become one of \(4,\)"):
        output.sum().backward()
