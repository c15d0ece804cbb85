"""Image models of timm and torchvision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor
from torch.nn import Module


def image(size: int, channels: int = 3, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch, channels, size, size, generator=generator)


def timms(name: str, size: int, **sizes: Any) -> Callable[[], tuple[Module, dict[str, Any]]]:
    """A model of timm for images of that size."""

    def make() -> tuple[Module, dict[str, Any]]:
        torch.manual_seed(0)
        return timm.create_model(name, pretrained=False, num_classes=5, **sizes), {"x": image(size)}

    return make


def torchvisions(name: str, size: int, **sizes: Any) -> Callable[[], tuple[Module, dict[str, Any]]]:
    """A model of torchvision for images of that size."""

    def make() -> tuple[Module, dict[str, Any]]:
        torch.manual_seed(0)
        return getattr(torchvision.models, name)(num_classes=5, **sizes), {"x": image(size)}

    return make


MODELS = {
    "swin_tiny_patch4_window7_224": timms(
        "swin_tiny_patch4_window7_224", 56, img_size=56, embed_dim=8, depths=(2, 2), num_heads=(2, 2), window_size=7
    ),
    "mambaout_femto": timms("mambaout_femto", 32, depths=(1, 1, 2, 1), dims=(8, 8, 16, 16)),
    "mambaout_tiny": timms("mambaout_tiny", 64, depths=(1, 2, 1, 1), dims=(8, 16, 16, 24)),
    "convnext_atto": timms("convnext_atto", 64, depths=(1, 2, 1, 1), dims=(8, 8, 16, 16)),
    "pvt_v2_b0": timms("pvt_v2_b0", 64, depths=(1, 1, 1, 1), embed_dims=(8, 8, 20, 16)),
    "csatv2": timms("csatv2", 64, dims=(8, 8, 16, 32), depths=(1, 1, 1, 1), transformer_depths=(0, 0, 1, 1)),
    "visformer_tiny": timms(
        "visformer_tiny", 64, img_size=64, init_channels=8, embed_dim=24, depth=(1, 1, 1), num_heads=2
    ),
    "deit_small_patch16_224": timms(
        "deit_small_patch16_224", 32, img_size=32, patch_size=16, embed_dim=16, depth=2, num_heads=2
    ),
    "mnasnet0_5": torchvisions("mnasnet0_5", 32),
    "shufflenet_v2_x0_5": torchvisions("shufflenet_v2_x0_5", 32),
    "densenet121": torchvisions("DenseNet", 32, block_config=(6, 12, 24, 16), growth_rate=4, num_init_features=8),
    "squeezenet1_0": torchvisions("squeezenet1_0", 48),
}
