"""`pg.cache` against forward hooks and autograd."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import ActivationCache, AddPatch, MissingPatchWarning, PatchableGraph
from nets import Net
from transformers_models import build

X = torch.randn(3, 4)
IDS = torch.tensor([[5, 17, 3, 42, 8], [1, 2, 3, 4, 5]])


@pytest.fixture
def pg() -> PatchableGraph:
    return PatchableGraph(Net(), X)


@pytest.fixture(scope="module")
def gpt2() -> PatchableGraph:
    return PatchableGraph(build("gpt2", "eager"), IDS, use_cache=False)


def hooked(model: nn.Module, modules: list[str], *inputs: Tensor, **kwargs: object) -> dict[str, Tensor]:
    """The outputs of modules, kept by forward hooks."""
    kept: dict[str, Tensor] = {}

    def keep(path: str, output: Tensor | tuple[Tensor, ...]) -> None:
        kept[path] = output if isinstance(output, Tensor) else output[0]

    hooks = [
        model.get_submodule(path).register_forward_hook(lambda _m, _i, output, path=path: keep(path, output))
        for path in modules
    ]
    model(*inputs, **kwargs)
    for hook in hooks:
        hook.remove()
    return kept


def test_values_by_path(gpt2: PatchableGraph) -> None:
    cache = gpt2.cache(IDS, "transformer.h_*.{mlp,attn}.output{,|sub_0}", use_cache=False)
    expected = hooked(
        gpt2.module, [f"transformer.h.{n}.{part}" for n in (0, 1) for part in ("mlp", "attn")], IDS, use_cache=False
    )
    for path, value in expected.items():
        name = path.replace(".h.", ".h_") + (".output|sub_0" if path.endswith("attn") else ".output")
        assert torch.equal(cache[name], value.detach()) and not cache[name].requires_grad
    assert {"transformer.h_0.mlp.output", "transformer.h_1.attn.output|sub_0"} < {*cache}
    assert torch.equal(cache.output.logits, gpt2(IDS, use_cache=False).logits)
    node = gpt2.graph.transformer.h_0.mlp.output
    assert node in cache and cache[node] is cache["transformer.h_0.mlp.output"]
    with pytest.raises(KeyError, match="nothing: is not in this cache of"):
        cache["nothing"]


def test_everything_without_a_pattern(pg: PatchableGraph) -> None:
    cache = pg.cache(X)
    assert [*cache] == [str(node) for node in pg.graph.find(shape="...")]
    block = pg.module.blocks[0]
    assert torch.equal(cache["blocks_0.sigmoid"], torch.sigmoid(block.up(X)))
    assert torch.equal(cache["blocks_1.down.weight"], pg.module.blocks[1].down.weight)
    assert torch.equal(cache["output"], pg(X)) and cache._ipython_key_completions_() == [*cache]


def test_gradients_of_a_loss(pg: PatchableGraph) -> None:
    cache = pg.cache(X, "blocks_*.output", grads=lambda output: output.square().sum())
    first = pg.module.blocks[0](X).detach().requires_grad_()
    second = pg.module.blocks[1](first)
    second.retain_grad()
    second.square().sum().backward()
    assert torch.equal(cache.grads["blocks_0.output"], first.grad)
    assert torch.equal(cache.grads["blocks_1.output"], second.grad)
    pg.module.zero_grad()
    with torch.no_grad():
        again = pg.cache(X, "blocks_*.output", grads=lambda output: output.square().sum())
    assert torch.equal(again.grads["blocks_0.output"], first.grad)
    assert all(parameter.grad is None for parameter in pg.module.parameters())


def test_gradients_of_frozen_models_and_of_parameters(gpt2: PatchableGraph) -> None:
    nodes = ["transformer.wte.output", "transformer.h_1.mlp.c_fc.weight", "input_ids"]
    loss = lambda output: output.logits[:, -1].logsumexp(-1).sum()
    cache = gpt2.cache(IDS, nodes=nodes, grads=loss, use_cache=False)
    weight = gpt2.module.transformer.h[1].mlp.c_fc.weight
    (expected,) = torch.autograd.grad(loss(gpt2.module(IDS, use_cache=False)), weight)
    assert torch.allclose(cache.grads["transformer.h_1.mlp.c_fc.weight"], expected, atol=1e-6)
    assert "input_ids" in cache and "input_ids" not in cache.grads
    gpt2.module.requires_grad_(False)
    try:
        frozen = gpt2.cache(IDS, nodes=nodes, grads=loss, use_cache=False)
    finally:
        gpt2.module.requires_grad_(True)
    assert torch.allclose(frozen.grads[nodes[0]], cache.grads[nodes[0]], atol=1e-6)


def test_a_run_that_ends_early(pg: PatchableGraph) -> None:
    called = []
    with pg.module.blocks[1].up.register_forward_hook(lambda *_: called.append(1)):
        cache = pg.cache(X, until="blocks_0.output")
    assert not called and cache.output is None and [*cache][-1] == "blocks_0.output"
    assert torch.equal(cache["blocks_0.output"], pg.module.blocks[0](X))
    with pytest.raises(ValueError, match="ends early"):
        pg.cache(X, until="output", grads=lambda output: output.sum())
    with pytest.raises(KeyError, match="means 2 nodes"):
        pg.cache(X, until="blocks_*.output")


def test_patches_hold_and_what_did_not_run_is_told(pg: PatchableGraph) -> None:
    with pg.patch({"blocks_0.output": AddPatch(value=1.0)}):
        cache = pg.cache(X, "blocks_0.output")
    assert torch.equal(cache["blocks_0.output"], pg.module.blocks[0](X) + 1.0)

    class Sometimes(nn.Module):
        def forward(self, x: Tensor, more: bool = True) -> Tensor:
            return x.exp() if more else x.sin()

    sometimes = PatchableGraph(Sometimes(), X)
    sometimes.record(X, more=False)
    assert {*sometimes.cache(X)} == {"x", "exp", "output"} and {*sometimes.cache(X, False)} == {"x", "sin", "output"}
    with pytest.warns(MissingPatchWarning, match="exp"):
        sometimes.cache(X, "exp", more=False)


def test_what_is_made_of_a_cache(pg: PatchableGraph, tmp_path: Path) -> None:
    cache = pg.cache(X, "blocks_*.output", grads=lambda output: output.sum())
    stacked = cache.stack()
    assert torch.equal(stacked, torch.stack([cache["blocks_0.output"], cache["blocks_1.output"]]))
    assert torch.equal(cache.rows(1)["blocks_0.output"], cache["blocks_0.output"][1])
    assert torch.equal(cache.rows([0, 2]).grads["blocks_1.output"], cache.grads["blocks_1.output"][[0, 2]])
    assert torch.allclose(cache.norms().stack(), stacked.norm(dim=-1))
    assert torch.allclose(cache.norms(ord=1, dim=None)["blocks_0.output"], cache["blocks_0.output"].abs().sum())
    assert cache.to(torch.float64)["blocks_0.output"].dtype == torch.float64
    arrays = cache.to(torch.bfloat16).numpy()
    assert (arrays["blocks_0.output"] == cache["blocks_0.output"].bfloat16().float().numpy()).all()
    joined = ActivationCache.concat([cache.rows(slice(0, 2)), cache.rows(slice(2, 3))])
    assert torch.equal(joined.stack(), stacked)
    cache.to_safetensors(tmp_path / "cache.safetensors")
    loaded = ActivationCache.from_safetensors(tmp_path / "cache.safetensors")
    assert {*loaded} == {*cache} and torch.equal(loaded.stack([*cache]), stacked)
    with pytest.raises(ValueError, match="different shapes"):
        pg.cache(X).stack()
    assert "blocks_1.output: (3, 4) float32" in repr(cache) and "<td" in cache._repr_html_()
    assert "Actual" not in repr(pg.cache(X)) and "more" in repr(pg.cache(X))
