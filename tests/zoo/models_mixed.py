"""Models of images and text, and vision models of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch.nn import Module

from models_text import SIZES, tokens
from models_vision import image

VISION: dict[str, Any] = dict(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=16,
    patch_size=8,
    num_channels=3,
)
IMAGE_TOKEN = 3


def seen(config: Any, model: str, **inputs: Any) -> tuple[Module, dict[str, Any]]:
    torch.manual_seed(0)
    return getattr(transformers, model)(config), inputs


def with_image(length: int, count: int) -> torch.Tensor:
    """Tokens that begin with as many image tokens as the image needs."""
    ids = tokens(length)
    ids[0, :count] = IMAGE_TOKEN
    return ids


def siglip() -> tuple[Module, dict[str, Any]]:
    config = transformers.SiglipConfig(text_config=dict(SIZES, projection_size=16), vision_config=VISION)
    return seen(config, "SiglipModel", input_ids=tokens(), pixel_values=image(16))


def groupvit() -> tuple[Module, dict[str, Any]]:
    vision = dict(
        VISION, image_size=32, depths=(1, 1), num_hidden_layers=2, num_group_tokens=(4, 0), num_output_groups=(4, 2)
    )
    config = transformers.GroupViTConfig(
        text_config=dict(SIZES), vision_config=vision, projection_dim=8, projection_intermediate_dim=16
    )
    return seen(config, "GroupViTModel", input_ids=tokens(), pixel_values=image(32))


def sam_vision_model() -> tuple[Module, dict[str, Any]]:
    config = transformers.SamVisionConfig(
        **dict(VISION, image_size=32),
        output_channels=8,
        window_size=3,
        global_attn_indexes=(1,),
        initializer_range=0.02,
    )
    return seen(config, "SamVisionModel", pixel_values=image(32))


def hgnet_v2() -> tuple[Module, dict[str, Any]]:
    config = transformers.HGNetV2Config(
        embedding_size=8,
        depths=(1, 1),
        hidden_sizes=(16, 24),
        stem_channels=(3, 4, 8),
        stage_in_channels=(8, 16),
        stage_mid_channels=(4, 8),
        stage_out_channels=(16, 24),
        stage_num_blocks=(1, 2),
        stage_downsample=(False, True),
        stage_downsample_strides=(2, 2),
        stage_light_block=(False, True),
        stage_kernel_size=(3, 5),
        stage_numb_of_layers=(2, 2),
        use_learnable_affine_block=True,
    )
    return seen(config, "HGNetV2ForImageClassification", pixel_values=image(32))


def granite_docling_vision() -> tuple[Module, dict[str, Any]]:
    from transformers.models.granite_docling import configuration_granite_docling, modeling_granite_docling

    torch.manual_seed(0)
    config = configuration_granite_docling.GraniteDoclingVisionConfig(
        **dict(VISION, image_size=32), out_hidden_size=16, scale_factor=2, deepstack_visual_indexes=[0, 1]
    )
    return modeling_granite_docling.GraniteDoclingVisionModel(config), {"pixel_values": image(32)}


def paligemma() -> tuple[Module, dict[str, Any]]:
    config = transformers.PaliGemmaConfig(
        vision_config=dict(VISION, model_type="siglip_vision_model", vision_use_head=False),
        text_config=dict(SIZES, model_type="gemma", head_dim=8),
        image_token_index=IMAGE_TOKEN,
        vocab_size=SIZES["vocab_size"],
        projection_dim=16,
        hidden_size=16,
    )
    return seen(config, "PaliGemmaForConditionalGeneration", input_ids=with_image(8, 4), pixel_values=image(16))


def aria() -> tuple[Module, dict[str, Any]]:
    config = transformers.AriaConfig(
        vision_config=dict(VISION, model_type="idefics3_vision"),
        text_config=dict(SIZES, moe_num_experts=3, moe_topk=2, moe_num_shared_experts=1),
        projector_patch_to_query_dict={4: 2},
        image_token_index=IMAGE_TOKEN,
    )
    return seen(
        config,
        "AriaForConditionalGeneration",
        input_ids=with_image(6, 2),
        pixel_values=image(16),
        pixel_mask=torch.ones(1, 16, 16, dtype=torch.long),
    )


def aya_vision() -> tuple[Module, dict[str, Any]]:
    config = transformers.AyaVisionConfig(
        vision_config=dict(VISION, model_type="siglip_vision_model", vision_use_head=False),
        text_config=dict(SIZES, model_type="cohere2", head_dim=8, sliding_window=4),
        image_token_index=IMAGE_TOKEN,
    )
    return seen(config, "AyaVisionForConditionalGeneration", input_ids=with_image(6, 1), pixel_values=image(16))


def mllama() -> tuple[Module, dict[str, Any]]:
    vision = dict(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_global_layers=1,
        attention_heads=2,
        vision_output_dim=32,
        image_size=16,
        patch_size=8,
        max_num_tiles=2,
        intermediate_layers_indices=[0],
        supported_aspect_ratios=[[1, 1], [1, 2], [2, 1]],
    )
    rope = dict(rope_type="default", rope_theta=10000.0)
    config = transformers.MllamaConfig(
        vision_config=vision,
        text_config=dict(SIZES, cross_attention_layers=[1], rope_parameters=rope),
        image_token_index=IMAGE_TOKEN,
    )
    return seen(
        config,
        "MllamaForConditionalGeneration",
        input_ids=with_image(6, 1),
        pixel_values=image(16, batch=2)[None, None],
        aspect_ratio_ids=torch.tensor([[2]]),
        aspect_ratio_mask=torch.ones(1, 1, 2, dtype=torch.long),
        cross_attention_mask=torch.ones(1, 6, 1, 2, dtype=torch.long),
    )


MODELS: dict[str, Callable[[], tuple[Module, dict[str, Any]]]] = {
    "siglip": siglip,
    "groupvit": groupvit,
    "sam_vision_model": sam_vision_model,
    "hgnet_v2": hgnet_v2,
    "granite_docling_vision": granite_docling_vision,
    "paligemma": paligemma,
    "aria": aria,
    "aya_vision": aya_vision,
    "mllama": mllama,
}
