"""Values of one run that are used in another run, compared with hooks and with each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import PatchableGraph, PatchError, ReplacePatch
from transformers_models import build

CLEAN, CORRUPTED = torch.tensor([[5, 17, 3, 42, 8, 1]]), torch.tensor([[5, 17, 9, 42, 7, 2]])
MLP, ATTENTION = "transformer.h_{}.mlp.output", "transformer.h_{}.attn.output|sub_0"


def metric(output: Any) -> Tensor:
    return output.logits[0, -1, 7]


@pytest.fixture(scope="module")
def pg() -> PatchableGraph:
    model = build("gpt2", "eager").requires_grad_(False)
    return PatchableGraph(model, CLEAN, use_cache=False)


class Hooked:
    """Hooks that keep the outputs of modules, and replace them by other values."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.kept = model, {}

    def run(self, ids: Tensor, values: dict[str, Tensor] | None = None, at: dict[str, Any] | None = None) -> Any:
        self.kept = {}
        hooks = []
        for path, module in self.model.named_modules():
            if path.endswith((".mlp", ".attn")):
                value = (values or {}).get(path)
                place = (at or {}).get(path, ...)
                hooks.append(module.register_forward_hook(self.hook(path, value, place)))
        output = self.model(ids, use_cache=False)
        for hook in hooks:
            hook.remove()
        return output

    def hook(self, path: str, value: Tensor | None, place: Any) -> Any:
        def call(_m: nn.Module, _i: Any, output: Any) -> Any:
            result = (output if isinstance(output, Tensor) else output[0]).clone()
            if value is not None:
                result[place] = value
            self.kept[path] = result
            return result if isinstance(output, Tensor) else (result, *output[1:])

        return call


@pytest.fixture
def hooked(pg: PatchableGraph) -> Hooked:
    return Hooked(pg.module)


@pytest.mark.parametrize("positions", [None, [3], [(4, 2), 5, (0, 1)]], ids=str)
def test_interchange(pg: PatchableGraph, hooked: Hooked, positions: Any) -> None:
    for layer, (node, module) in [(0, (MLP, "mlp")), (1, (ATTENTION, "attn"))]:
        path = f"transformer.h.{layer}.{module}"
        hooked.run(CLEAN)
        value: Tensor = hooked.kept[path]
        place: Any = ...
        if positions is not None:
            pairs = [(each, each) if isinstance(each, int) else each for each in positions]
            value, place = value[:, [source for source, _ in pairs]], (slice(None), [target for _, target in pairs])
        expected = hooked.run(CORRUPTED, {path: value}, {path: place}).logits
        inputs = {"input_ids": CORRUPTED, "use_cache": False}
        assert torch.equal(pg.swap(CLEAN, inputs, node.format(layer), positions).logits, expected)


def test_interchange_by_pattern_and_its_errors(pg: PatchableGraph, hooked: Hooked) -> None:
    hooked.run(CLEAN)
    values = {path: value for path, value in hooked.kept.items() if path.endswith("mlp")}
    expected = hooked.run(CORRUPTED, values).logits
    assert torch.equal(pg.swap(CLEAN, CORRUPTED, "transformer.h_*.mlp.output").logits, expected)
    with pytest.raises(PatchError, match="expanded size"):
        pg.swap(CLEAN[:, :4], CORRUPTED, MLP.format(0))
    with pytest.raises(KeyError):
        pg.swap(CLEAN, CORRUPTED, "nothing")


def test_attribution_is_the_derivative_of_an_interchange(pg: PatchableGraph) -> None:
    nodes = [MLP.format(0), MLP.format(1), ATTENTION.format(1)]
    effects = pg.attribute(CLEAN, CORRUPTED, nodes, metric=metric)
    clean, corrupted = pg.cache(CLEAN, nodes=nodes), pg.cache(CORRUPTED, nodes=nodes)
    for path in nodes:
        value = corrupted[path].clone().requires_grad_()
        with pg.patch({path: ReplacePatch(value=value)}):
            (gradient,) = torch.autograd.grad(metric(pg(CORRUPTED)), value)
        assert torch.allclose(effects[path], (clean[path] - corrupted[path]) * gradient, atol=1e-6)
        assert torch.allclose(effects.grads[path], gradient, atol=1e-6)
        # The estimate also agrees with the change by a small step in that direction.
        step = 1e-3
        moved = corrupted[path] + (clean[path] - corrupted[path]) * step
        with torch.no_grad(), pg.patch({path: ReplacePatch(value=moved.double().float())}):
            change = (metric(pg(CORRUPTED)) - metric(corrupted.output)) / step
        assert torch.allclose(effects[path].sum(), change, rtol=0.05, atol=0.02)
    with pytest.raises(ValueError, match="other shapes"):
        pg.attribute(CLEAN[:, :3], CORRUPTED, nodes, metric=metric)


def test_path_patching(pg: PatchableGraph, hooked: Hooked) -> None:
    """The direct path from the attention of block 0 to the MLP of block 1: all outputs between them are frozen."""
    sender, receiver = "transformer.h.0.attn", "transformer.h.1.mlp"
    hooked.run(CLEAN)
    sent = hooked.kept[sender]
    hooked.run(CORRUPTED)
    frozen = {path: value for path, value in hooked.kept.items() if path not in (sender, receiver)}
    hooked.run(CORRUPTED, {**frozen, sender: sent})
    received = hooked.kept[receiver]
    expected = hooked.run(CORRUPTED, {receiver: received}).logits
    freeze = "transformer.h_*.{attn.output|sub_0,mlp.output}"
    patched = pg.path_patch(CLEAN, CORRUPTED, ATTENTION.format(0), MLP.format(1), freeze=freeze)
    assert torch.equal(patched.logits, expected)
    # If nothing is frozen, the effect takes all paths, and the result differs.
    free = pg.path_patch(CLEAN, CORRUPTED, ATTENTION.format(0), MLP.format(1)).logits
    hooked.run(CORRUPTED, {sender: sent})
    assert torch.equal(free, hooked.run(CORRUPTED, {receiver: hooked.kept[receiver]}).logits)
    assert not torch.equal(free, expected)
