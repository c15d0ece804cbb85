"""Patches under autocast, without gradients, in inference mode, and in generate()."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from libgraphpatch import AddPatch, CustomPatch, PatchableGraph, ProbePatch, RecordPatch, ZeroPatch
from nets import Net, same


def test_autocast() -> None:
    net, x = Net(), torch.randn(3, 4)
    pg = PatchableGraph(net, x)
    first, second = net.blocks
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pg.patch({"blocks_0.up.output": (probe := ProbePatch()), "blocks_1.up.linear": ZeroPatch()}):
            patched = pg(x)
        hidden = first(x)
        expected = hidden + second.down(torch.sigmoid(torch.zeros(3, 6, dtype=torch.bfloat16)) * 2)
        assert same(probe.activation, first.up(x).detach()) and probe.activation.dtype == torch.bfloat16
        assert same(patched, expected)
        assert repr(PatchableGraph(net, x).graph) == repr(pg.graph)


def test_autocast_inside_the_model() -> None:
    class Mixed(Net):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                hidden = self.blocks[0](x)
            return self.blocks[1](hidden.float())

    net, x = Mixed(), torch.randn(3, 4)
    pg = PatchableGraph(net, x)
    with pg.patch({"blocks_0.down.linear": AddPatch(value=1.0), "blocks_0.down.output": (probe := ProbePatch())}):
        patched = pg(x)
    assert probe.activation.dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        block = net.blocks[0]
        hidden = x + (block.down(torch.sigmoid(block.up(x)) * 2) + 1.0)
    assert same(patched, net.blocks[1](hidden.float()))


PATHS = ["x", "blocks_0.x", "blocks_0.up.weight", "blocks_0.sigmoid", "blocks_1.down.linear", "output"]


@pytest.mark.parametrize("made_in", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode: Callable[[], Any], made_in: Callable[[], Any]) -> None:
    net, x = Net(), torch.randn(3, 4)
    with made_in():
        pg, value = PatchableGraph(net, x), torch.randn(1, requires_grad=made_in is torch.enable_grad)
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for path in PATHS:
        results = []
        for grad in (torch.enable_grad, mode):
            probe = ProbePatch()
            patches = [AddPatch(value=value.clone()), CustomPatch(custom_op=torch.tanh), probe]
            with grad(), pg.patch({path: patches}):
                results.append((pg(x), probe.activation))
        (expected, activation), (patched, other) = results
        assert torch.equal(patched, expected) and torch.equal(activation, other) and not patched.requires_grad, path
    assert all(same(tensor, state[name]) for name, tensor in net.state_dict().items())


def test_inputs_that_are_inference_tensors_stay_as_they_are() -> None:
    with torch.inference_mode():
        x = torch.randn(3, 4)
    net, kept = Net(), x.clone()
    pg = PatchableGraph(net, torch.randn(3, 4))
    for path in ("x", "blocks_0.x"):
        with torch.no_grad(), pg.patch({path: ZeroPatch()}):
            assert same(pg(x), net.blocks[1](net.blocks[0](torch.zeros(3, 4))))
        assert same(x, kept)


def test_a_forward_that_computes_gradients_itself() -> None:
    class Slope(Net):
        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                return torch.autograd.grad(super().forward(x).square().sum(), x)[0] * 2

    net, x = Slope(), torch.randn(3, 4)
    pg = PatchableGraph(net, x)
    with pg.patch({"blocks_0.sigmoid": AddPatch(value=0.5), "mul": AddPatch(value=1.0)}):
        patched = pg(x)
    y = x.clone().requires_grad_()
    first, second = net.blocks
    hidden = y + first.down((torch.sigmoid(first.up(y)) + 0.5) * 2)
    expected = torch.autograd.grad(second(hidden).square().sum(), y)[0] * 2 + 1
    assert same(patched, expected)


@pytest.fixture(scope="module")
def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=64, n_positions=32, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0, pad_token_id=0
    )
    return GPT2LMHeadModel(config).eval()


def test_generate_is_patched_in_every_step(gpt2: GPT2LMHeadModel) -> None:
    ids = torch.tensor([[5, 17, 3, 42]])
    pg = PatchableGraph(gpt2, ids)
    steps = {"max_new_tokens": 5, "do_sample": False}
    bare = gpt2.generate(ids, **steps)
    assert torch.equal(pg.generate(ids, **steps), bare)
    shift = torch.randn(16) * 20
    handle = gpt2.transformer.h[0].mlp.register_forward_hook(lambda module, args, output: output + shift)
    hooked = gpt2.generate(ids, **steps)
    handle.remove()
    record = RecordPatch()
    with pg.patch({"transformer.h_0.mlp.output": AddPatch(value=shift), "lm_head.output": record}):
        patched, by_module = pg.generate(ids, **steps), gpt2.generate(ids, **steps)
    assert torch.equal(patched, hooked) and torch.equal(by_module, hooked) and not torch.equal(hooked, bare)
    assert len(record.activations) == 10
    assert [logits.argmax().item() for logits in record.activations[:5]] == hooked[0, 4:].tolist()
    assert torch.equal(pg.generate(ids, **steps), bare)
    with pg.patch({"lm_head.output": AddPatch(value=1000.0, slice=(..., 7))}, runs="1"):
        patched = pg.generate(ids, **steps)
    assert patched[0, 4] == bare[0, 4] and patched[0, 5] == 7


def test_prefill_and_decoding_steps_become_one_graph(gpt2: GPT2LMHeadModel) -> None:
    ids = torch.tensor([[5, 17, 3, 42]])
    pg = PatchableGraph(gpt2, ids)
    with pg.recording():
        generated = pg.generate(ids, max_new_tokens=4, do_sample=False)
    assert torch.equal(generated, gpt2.generate(ids, max_new_tokens=4, do_sample=False))
    assert pg.graph.transformer.h_1.mlp.output._shape == (1, range(1, 5), 16)
    assert pg.config is gpt2.config and isinstance(pg, GPT2LMHeadModel)
