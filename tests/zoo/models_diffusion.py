"""Models of diffusers, and one of peft."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import peft
import torch
from torch import Tensor
from torch.nn import Module

from models_text import text


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def wan() -> tuple[Module, dict[str, Any]]:
    torch.manual_seed(0)
    model = diffusers.WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=8,
        freq_dim=8,
        ffn_dim=16,
        num_layers=2,
        rope_max_seq_len=16,
    )
    return model, {
        "hidden_states": noise(1, 4, 2, 4, 4),
        "timestep": torch.tensor([3]),
        "encoder_hidden_states": noise(1, 4, 8),
    }


def ltx_video() -> tuple[Module, dict[str, Any]]:
    torch.manual_seed(0)
    model = diffusers.AutoencoderKLLTXVideo(
        latent_channels=4,
        block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        down_block_types=("LTXVideoDownBlock3D", "LTXVideoDownBlock3D"),
        layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        spatio_temporal_scaling=(True, False),
        decoder_spatio_temporal_scaling=(True, False),
        decoder_inject_noise=(False, False, False),
        downsample_type=("conv", "conv"),
        upsample_residual=(False, False),
        upsample_factor=(1, 1),
        patch_size=2,
    )
    return model, {"sample": noise(1, 3, 3, 8, 8)}


def uvit() -> tuple[Module, dict[str, Any]]:
    torch.manual_seed(0)
    model = diffusers.UVit2DModel(
        hidden_size=16,
        cond_embed_dim=8,
        micro_cond_encode_dim=4,
        micro_cond_embed_dim=20,
        encoder_hidden_size=8,
        vocab_size=16,
        codebook_size=15,
        in_channels=16,
        block_out_channels=16,
        num_res_blocks=1,
        downsample=True,
        upsample=True,
        block_num_heads=2,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        sample_size=4,
    )
    return model, {
        "input_ids": torch.randint(0, 15, (1, 4, 4), generator=torch.Generator().manual_seed(2)),
        "encoder_hidden_states": noise(1, 3, 8),
        "pooled_text_emb": noise(1, 8),
        "micro_conds": torch.tensor([[4.0, 4.0, 0.0, 0.0, 6.0]]),
    }


def ln_tuning_llama() -> tuple[Module, dict[str, Any]]:
    model, inputs = text("Llama", "LlamaForCausalLM")()
    return peft.get_peft_model(model, peft.LNTuningConfig(task_type="CAUSAL_LM")), inputs


MODELS: dict[str, Callable[[], tuple[Module, dict[str, Any]]]] = {
    "WanTransformer3DModel": wan,
    "AutoencoderKLLTXVideo": ltx_video,
    "UVit2DModel": uvit,
    "ln_tuning_llama": ln_tuning_llama,
}
