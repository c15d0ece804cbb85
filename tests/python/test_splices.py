"""Modules in the place of values, and normalizations whose scale is a constant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import FreezeNormPatch, PatchableGraph, SplicePatch
from nets import Net
from transformers_models import build

X = torch.randn(3, 4)
IDS = torch.tensor([[5, 17, 3, 42, 8]])


def by_hand(net: Net, x: Tensor, at: Any) -> Tensor:
    first = net.blocks[0]
    return net.blocks[1](x + first.down(torch.sigmoid(at(first.up(x))) * 2))


@pytest.mark.parametrize("slice", [None, (..., [0, 2, 4])], ids=str)
@pytest.mark.parametrize("add", [False, True])
def test_a_splice_learns_as_it_would_in_the_module(add: bool, slice: Any) -> None:
    net = Net().requires_grad_(False)
    width = 6 if slice is None else 3
    spliced = nn.Sequential(nn.Linear(width, 2, bias=False), nn.Linear(2, width, bias=False))
    pg = PatchableGraph(net, X)

    def at(value: Tensor) -> Tensor:
        if slice is None:
            return value + spliced(value) if add else spliced(value)
        changed = value.clone()
        changed[slice] = value[slice] + spliced(value[slice]) if add else spliced(value[slice])
        return changed

    with pg.patch({"blocks_0.up.output": SplicePatch(module=spliced, add=add, slice=slice)}):
        output = pg(X)
    expected = by_hand(net, X, at)
    assert torch.equal(output, expected)
    patched = torch.autograd.grad(output.square().sum(), [*spliced.parameters()])
    plain = torch.autograd.grad(expected.square().sum(), [*spliced.parameters()])
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(patched, plain, strict=True))


def test_a_splice_is_trained_saved_and_loaded(tmp_path: Path) -> None:
    net, target = Net().requires_grad_(False), torch.randn(3, 4)
    pg, spliced = PatchableGraph(net, X), nn.Linear(6, 6)
    optimizer = torch.optim.SGD(spliced.parameters(), lr=0.5)
    losses = []
    for _ in range(25):
        with pg.patch({"blocks_0.up.output": SplicePatch(module=spliced, add=True)}):
            loss = (pg(X) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] * 0.9
    torch.save(spliced.state_dict(), tmp_path / "splice.pt")
    again = nn.Linear(6, 6)
    again.load_state_dict(torch.load(tmp_path / "splice.pt"))
    outputs = []
    for module in (spliced, again):
        with pg.patch({"blocks_0.up.output": SplicePatch(module=module, add=True)}):
            outputs.append(pg(X))
    assert torch.equal(*outputs)


def frozen(module: nn.Module, x: Tensor, scale: Tensor | None = None) -> Tensor:
    """A normalization that divides by a constant."""
    rms = not isinstance(module, nn.LayerNorm)
    centered = x if rms else x - x.mean(-1, keepdim=True)
    epsilon = module.variance_epsilon if rms else module.eps
    scale = (centered.square().mean(-1, keepdim=True) + epsilon).sqrt().detach() if scale is None else scale
    result = centered / scale * module.weight
    return result if rms else result + module.bias


@pytest.mark.parametrize(("name", "norms"), [("gpt2", "transformer.h_*.ln_*"), ("llama", "model.layers_*.*_layernorm")])
def test_a_frozen_norm_is_linear(name: str, norms: str) -> None:
    model = build(name, "eager")
    pg = PatchableGraph(model, IDS)
    modules = [
        module
        for path, module in model.named_modules()
        if path.split(".")[-1].startswith("ln_") or path.endswith("_layernorm")
    ]
    modules = [module for module in modules if module is not getattr(getattr(model, "transformer", None), "ln_f", None)]
    before = pg(IDS, use_cache=False).logits
    with pg.patch({norms: FreezeNormPatch()}) as patched:
        output = pg(IDS, use_cache=False).logits
        gradients = torch.autograd.grad(output.square().sum(), [*model.parameters()], allow_unused=True)
    assert len(patched.counts) == len(modules) == 4
    assert torch.allclose(output, before, atol=1e-4), "values are those of the run itself"
    originals = [module.forward for module in modules]
    for module in modules:
        module.forward = lambda x, module=module: frozen(module, x)
    try:
        expected = model(IDS, use_cache=False).logits
        wanted = torch.autograd.grad(expected.square().sum(), [*model.parameters()], allow_unused=True)
    finally:
        for module, original in zip(modules, originals, strict=True):
            module.forward = original
    assert torch.allclose(output, expected, atol=1e-5)
    pairs = [(one, other) for one, other in zip(gradients, wanted, strict=True) if one is not None]
    assert all(torch.allclose(one, other, rtol=1e-3, atol=1e-3 * other.abs().max().item()) for one, other in pairs)


def test_the_scale_of_another_run_and_what_is_no_norm() -> None:
    norm = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4))
    pg, scale = PatchableGraph(norm, X), torch.full((3, 1), 2.0)
    with pg.patch({"sub_0": FreezeNormPatch(scale=scale)}):
        assert torch.allclose(pg(X), norm[1](frozen(norm[0], X, scale)))
    with pg.patch({"sub_1": FreezeNormPatch()}), pytest.raises(TypeError, match="Linear is neither"):
        pg(X)
