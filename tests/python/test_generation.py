"""Patches that are limited to rows, positions and steps of a generation: the tokens are those that forward hooks written
by hand give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from libgraphpatch import (
    AddPatch,
    CustomPatch,
    MissingPatchWarning,
    PatchableGraph,
    PatchError,
    ProbePatch,
    RecordPatch,
    ReplacePatch,
    SkipPatch,
    ZeroPatch,
)

PROMPT = torch.tensor([[5, 17, 3, 42], [7, 7, 1, 30]])
NEW = 5


def model(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "gpt2":
        config: Any = GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=60, n_positions=64, initializer_range=0.5)
        made: Any = GPT2LMHeadModel(config)
    else:
        made = LlamaForCausalLM(
            LlamaConfig(
                num_hidden_layers=2,
                num_attention_heads=2,
                hidden_size=16,
                intermediate_size=32,
                vocab_size=60,
                initializer_range=0.5,
            )
        )
    made.generation_config.pad_token_id = 0
    made.generation_config.eos_token_id = None
    return made.eval()


NODES = {
    "gpt2": ("transformer.h_1.mlp.output", lambda net: net.transformer.h[1].mlp),
    "llama": ("model.layers_1.mlp.output", lambda net: net.model.layers[1].mlp),
}
# Positions, steps, and rows of the limits, and what they are as sets.
LIMITS: list[tuple[dict[str, Any], set[int], set[int], set[int]]] = [
    ({"positions": "prompt"}, {0, 1, 2, 3}, set(range(99)), set(range(99))),
    ({"positions": "generated"}, set(range(4, 99)), set(range(99)), set(range(99))),
    ({"positions": "5.."}, set(range(5, 99)), set(range(99)), set(range(99))),
    ({"positions": [1, 6]}, {1, 6}, set(range(99)), set(range(99))),
    ({"steps": 2}, set(range(99)), {2}, set(range(99))),
    ({"steps": "1..4", "rows": 0}, set(range(99)), {1, 2, 3}, {0}),
    ({"rows": [1], "positions": slice(2, 6)}, {2, 3, 4, 5}, set(range(99)), {1}),
    ({"positions": range(3, 8), "steps": "..3"}, set(range(3, 8)), {0, 1, 2}, set(range(99))),
]


def by_hand(
    net: Any, part: nn.Module, change: Callable[[Tensor], Tensor], where: Any, generate: dict[str, Any]
) -> Tensor:
    """The tokens with hooks. They count the calls, and where in the text each stands, themselves."""
    _, positions, steps, rows = where
    seen = {"step": -1, "done": 0}

    def before(_: Any, args: Any, kwargs: Any) -> None:
        length = kwargs["input_ids"].shape[1]
        cached = generate.get("use_cache", True)
        seen["step"] += 1
        seen["first"] = seen["done"] if cached else 0
        seen["done"] = seen["first"] + length if cached else 0

    def after(_: Any, __: Any, out: Tensor) -> Tensor:
        if seen["step"] not in steps:
            return out
        out, changed = out.clone(), change(out)
        for row in range(out.shape[0]):
            for at in range(out.shape[1]):
                if row in rows and seen["first"] + at in positions:
                    out[row, at] = changed[row, at]
        return out

    hooks = [net.register_forward_pre_hook(before, with_kwargs=True), part.register_forward_hook(after)]
    try:
        return net.generate(PROMPT, max_new_tokens=NEW, do_sample=False, **generate)  # type: ignore[no-any-return]
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("kind", NODES)
@pytest.mark.parametrize(
    "generate",
    [{}, {"use_cache": False}, {"num_beams": 3}, {"num_beams": 3, "use_cache": False}],
    ids=["greedy", "greedy without cache", "beams", "beams without cache"],
)
def test_tokens_are_those_of_hooks(kind: str, generate: dict[str, Any]) -> None:
    net = model(kind)
    path, part = NODES[kind]
    pg = PatchableGraph(net, PROMPT)
    bare = net.generate(PROMPT, max_new_tokens=NEW, do_sample=False, **generate)
    steer = torch.linspace(-6, 6, 16)
    changed = 0
    for number, where in enumerate(LIMITS):
        patch, change = [
            (AddPatch(value=steer, **where[0]), lambda out: out + steer),
            (ReplacePatch(value=2.0, slice=(..., slice(0, 8)), **where[0]), _replaced),
            (CustomPatch(custom_op=lambda out: -out, **where[0]), lambda out: -out),
        ][number % 3]
        with pg.patch({path: patch}) as block:
            tokens = net.generate(PROMPT, max_new_tokens=NEW, do_sample=False, **generate)
        expected = by_hand(net, part(net), change, where, generate)
        assert torch.equal(tokens, expected), (where[0], patch)
        assert 0 < block.counts[path][0].applied <= block.counts[path][0].matched
        changed += not torch.equal(tokens, bare)
    assert changed >= len(LIMITS) // 2  # a comparison of tokens that no patch changes would show nothing
    assert torch.equal(net.generate(PROMPT, max_new_tokens=NEW, do_sample=False, **generate), bare)


def _replaced(out: Tensor) -> Tensor:
    out = out.clone()
    out[..., :8] = 2.0
    return out


def test_counts_and_missing_steps() -> None:
    net = model("gpt2")
    pg, path = PatchableGraph(net, PROMPT), NODES["gpt2"][0]
    with pg.patch({path: ZeroPatch(steps=[0, 3])}) as block:
        net.generate(PROMPT, max_new_tokens=NEW, do_sample=False)
        net.generate(PROMPT, max_new_tokens=NEW, do_sample=False)  # begins at step 0 again
    assert [block.counts[path][0] for _ in range(2)] == [(2 * NEW, 4, 0)] * 2
    with pytest.warns(MissingPatchWarning, match="steps of a patch never came"), pg.patch({path: ZeroPatch(steps=50)}):
        net.generate(PROMPT, max_new_tokens=NEW, do_sample=False)


def test_probes_keep_the_part() -> None:
    net = model("llama")
    pg, path = PatchableGraph(net, PROMPT), NODES["llama"][0]
    every, part = RecordPatch[Tensor](), RecordPatch[Tensor](positions="generated", rows=1)
    last = ProbePatch[Tensor](steps=2)
    with pg.patch({path: [every, part, last]}):
        net.generate(PROMPT, max_new_tokens=NEW, do_sample=False)
    assert [tuple(value.shape) for value in part.activations] == [(1, 1, 16)] * (NEW - 1)
    assert all(torch.equal(a[1:], b) for a, b in zip(every.activations[1:], part.activations, strict=True))
    assert last.activation is not None and torch.equal(last.activation, every.activations[2])


def test_one_call_without_a_generation() -> None:
    """Also values inside of attention, and operations that get all tokens in one dimension."""
    net = model("gpt2")
    pg = PatchableGraph(net, PROMPT)
    flat = "transformer.h_0.mlp.c_fc.addmm"
    kept, patched = ProbePatch[Tensor](), ProbePatch[Tensor]()
    with pg.patch({flat: [kept, ZeroPatch(rows=1, positions=[0, 2]), patched]}):
        pg(PROMPT)
    expected = kept.activation
    assert expected is not None and expected.shape[0] == 8
    expected = expected.clone()
    expected[[4, 6]] = 0
    assert patched.activation is not None and torch.equal(patched.activation, expected)


def test_gradients() -> None:
    net = model("gpt2")
    pg, path = PatchableGraph(net, PROMPT), NODES["gpt2"][0]
    value = torch.zeros(16, requires_grad=True)
    with pg.patch({path: AddPatch(value=value, positions=[1])}):
        pg(PROMPT).logits.square().sum().backward()
    got = value.grad
    value = torch.zeros(16, requires_grad=True)
    mask = torch.zeros(2, 4, 1)
    mask[:, 1] = 1
    handle = net.transformer.h[1].mlp.register_forward_hook(lambda _, __, out: out + mask * value)
    net(PROMPT).logits.square().sum().backward()
    handle.remove()
    assert got is not None and value.grad is not None and torch.allclose(got, value.grad, rtol=1e-4, atol=1e-4)


def test_refusals() -> None:
    net = model("gpt2")
    pg, path = PatchableGraph(net, PROMPT), NODES["gpt2"][0]
    for limits in ({"positions": "last"}, {"positions": -1}, {"steps": "a"}, {"rows": 1.5}, {"steps": "prompt"}):
        with pytest.raises(ValueError, match=f"{next(iter(limits))}="), pg.patch({path: ZeroPatch(**limits)}):  # type: ignore[arg-type]
            pass
    with pytest.raises(ValueError, match="takes no rows, positions or steps"):
        SkipPatch(value="x", steps=1)
    weights = "transformer.h_0.mlp.c_fc.weight"
    with pytest.raises((ValueError, PatchError), match="rows="), pg.patch({weights: ZeroPatch(rows=1)}):
        pg(PROMPT)
    cache = net(PROMPT, use_cache=True).past_key_values
    with pytest.raises((ValueError, PatchError), match="whose first call was not seen"):
        with pg.patch({path: ZeroPatch(positions="generated")}):
            net(PROMPT[:, -1:], past_key_values=cache)
