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


def torchvisions(name: str, size: int) -> Callable[[], tuple[Module, dict[str, Any]]]:
    """A model of torchvision for images of that size."""

    def make() -> tuple[Module, dict[str, Any]]:
        torch.manual_seed(0)
        return getattr(torchvision.models, name)(weights=None, num_classes=5), {"x": image(size)}

    return make


MODELS = {
    "swin_tiny_patch4_window7_224": timms(
        "swin_tiny_patch4_window7_224",
        56,
        img_size=56,
        embed_dim=8,
        depths=(2, 2),
        num_heads=(2, 2),
        window_size=7,
    ),
}
