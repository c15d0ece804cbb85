"""Four families of models: small ones of transformers with random weights, and where their parts are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)


class Family(NamedTuple):
    """A family of models, and where its parts are."""

    make: Callable[[], nn.Module]
    clean: Tensor
    corrupted: Tensor
    blocks: str  # the attribute path of its list of blocks
    mlp: str  # the path in a block of the module whose output the MLP adds to the residual stream
    unembed: Callable[[nn.Module, Tensor], Tensor]  # logits from a hidden state
    mask: Tensor | None = None  # what these decoders make themselves by torch.vmap, which torch.jit.trace cannot follow


SIZES: dict[str, Any] = dict(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24)
CLEAN, CORRUPTED = torch.tensor([[5, 17, 3, 42, 8, 1]]), torch.tensor([[5, 17, 9, 42, 7, 2]])
CAUSAL = torch.full((6, 6), torch.finfo(torch.float32).min).triu(1)[None, None]
IMAGES = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8).sin()


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=3, n_head=2, attn_implementation="eager")
    )


def llama() -> nn.Module:
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=50, max_position_embeddings=16, attn_implementation="eager", **SIZES)
    )


def bert() -> nn.Module:
    return BertForMaskedLM(BertConfig(vocab_size=50, max_position_embeddings=16, attn_implementation="eager", **SIZES))


def vit() -> nn.Module:
    return ViTForImageClassification(
        ViTConfig(image_size=8, patch_size=4, num_labels=5, attn_implementation="eager", **SIZES)
    )


FAMILIES = {
    "GPT-2": Family(
        gpt2, CLEAN, CORRUPTED, "transformer.h", "mlp", lambda m, h: m.lm_head(m.transformer.ln_f(h)), CAUSAL
    ),
    "Llama": Family(llama, CLEAN, CORRUPTED, "model.layers", "mlp", lambda m, h: m.lm_head(m.model.norm(h)), CAUSAL),
    "BERT": Family(bert, CLEAN, CORRUPTED, "bert.encoder.layer", "output.dense", lambda m, h: m.cls(h)),
    "ViT": Family(
        vit, IMAGES[:1], IMAGES[1:], "vit.encoder.layer", "output.dense", lambda m, h: m.classifier(m.vit.layernorm(h))
    ),
}


def logits_of(output: Any) -> Tensor:
    """Of what a model returns; of some forms of it, that is the logits alone."""
    logits: Tensor = getattr(output, "logits", output)
    return logits


def made(family: Family) -> nn.Module:
    """The family's model, the same in every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = family.make().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.config.use_cache = False
    return model


def metric(output: Any) -> Tensor:
    logits = logits_of(output)
    return logits.reshape(logits.shape[0], -1, logits.shape[-1])[:, -1, 3].sum()
