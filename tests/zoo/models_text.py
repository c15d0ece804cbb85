"""Language models of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.nn import Module

VOCABULARY = 48
SIZES: dict[str, Any] = dict(
    vocab_size=VOCABULARY,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=32,
    bos_token_id=0,
    eos_token_id=1,
    pad_token_id=2,
)


def tokens(length: int = 6, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(4, VOCABULARY, (batch, length), generator=generator)


def text(kind: str, model: str, **sizes: Any) -> Callable[[], tuple[Module, dict[str, Any]]]:
    """A model that takes tokens: its configuration's class without "Config", its own class, and sizes."""

    def make() -> tuple[Module, dict[str, Any]]:
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**{**SIZES, **sizes})
        return getattr(transformers, model)(config), {"input_ids": tokens()}

    return make


MODELS = {
    "ctrl": text("CTRL", "CTRLLMHeadModel", n_positions=32, n_embd=16, dff=24, n_layer=2, n_head=2),
    "deepseek_v3": text(
        "DeepseekV3",
        "DeepseekV3ForCausalLM",
        num_key_value_heads=2,
        moe_intermediate_size=8,
        n_routed_experts=4,
        n_group=2,
        topk_group=1,
        num_experts_per_tok=2,
        kv_lora_rank=8,
        q_lora_rank=8,
        qk_rope_head_dim=4,
        v_head_dim=8,
        qk_nope_head_dim=4,
        first_k_dense_replace=1,
    ),
    "deberta-v2": text(
        "DebertaV2", "DebertaV2Model", relative_attention=True, position_buckets=4, pos_att_type=["p2c", "c2p"]
    ),
    "dpr": text("DPR", "DPRQuestionEncoder", projection_dim=8),
    "granitemoe": text("GraniteMoe", "GraniteMoeForCausalLM", num_local_experts=3, num_experts_per_tok=2),
    "olmo2": text("Olmo2", "Olmo2ForCausalLM"),
    "modernbert": text(
        "ModernBert",
        "ModernBertForMaskedLM",
        local_attention=4,
        layer_types=["full_attention", "sliding_attention"],
        cls_token_id=0,
        sep_token_id=1,
    ),
    "qwen3_5_text": text(
        "Qwen3_5Text",
        "Qwen3_5ForCausalLM",
        head_dim=8,
        linear_key_head_dim=4,
        linear_value_head_dim=4,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        layer_types=["linear_attention", "full_attention"],
    ),
    "roc_bert": text(
        "RoCBert",
        "RoCBertModel",
        pronunciation_embed_dim=8,
        pronunciation_vocab_size=VOCABULARY,
        shape_embed_dim=8,
        shape_vocab_size=VOCABULARY,
    ),
    "tapas": text("Tapas", "TapasForQuestionAnswering", type_vocab_sizes=(3, 8, 8, 2, 8, 8, 10)),
    "mamba": text("Mamba", "MambaForCausalLM", state_size=4, time_step_rank=2),
}
