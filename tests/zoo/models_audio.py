"""Audio models of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.nn import Module

from models_text import SIZES, tokens


def wave(length: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(1, length, generator=generator)


def speech(kind: str, **sizes: Any) -> Callable[[], tuple[Module, dict[str, Any]]]:
    """A model that takes a wave, behind a few convolutions."""
    small: dict[str, Any] = dict(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        conv_dim=(8, 8, 8),
        conv_stride=(5, 2, 2),
        conv_kernel=(10, 3, 2),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        layerdrop=0.0,
    )

    def make() -> tuple[Module, dict[str, Any]]:
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**{**small, **sizes})
        return getattr(transformers, f"{kind}Model")(config), {"input_values": wave(400)}

    return make


def encodec() -> tuple[Module, dict[str, Any]]:
    torch.manual_seed(0)
    config = transformers.EncodecConfig(
        hidden_size=8,
        num_filters=4,
        upsampling_ratios=(4, 2),
        codebook_size=8,
        num_lstm_layers=1,
        target_bandwidths=(18.0,),
    )
    return transformers.EncodecModel(config), {"input_values": wave(160)[None]}


def audioflamingo3() -> tuple[Module, dict[str, Any]]:
    torch.manual_seed(0)
    audio = dict(
        model_type="audioflamingo3_encoder",
        num_mel_bins=8,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_source_positions=8,
    )
    config = transformers.AudioFlamingo3Config(
        audio_config=audio, text_config=dict(SIZES, model_type="qwen2"), audio_token_id=3
    )
    ids = tokens(10)
    ids[0, 1:5] = 3  # 16 frames become 8 positions, and 4 tokens after the pooling
    mask = torch.ones(1, 16, dtype=torch.long)
    features = torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(2))
    model = transformers.AudioFlamingo3ForConditionalGeneration(config)
    return model, {"input_ids": ids, "input_features": features, "input_features_mask": mask}


MODELS = {
    "encodec": encodec,
    "audioflamingo3": audioflamingo3,
    "sew": speech("SEW"),
    "sew-d": speech("SEWD", position_buckets=4, max_position_embeddings=16),
}
