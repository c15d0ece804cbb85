"""Patches that put a module of the user's into another module. It can be trained, and is saved as other modules are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ._index import as_key
from .flow import SkipPatch
from .patches import Patch


@dataclass(kw_only=True)
class SplicePatch(Patch[Tensor]):
    """Replaces the value by what a module computes from it, or adds that to the value. The module can be trained, since
    gradients reach its parameters. It stays a module of the user's: save it by its ``state_dict()``.

    >>> lora = nn.Sequential(nn.Linear(768, 8, bias=False), nn.Linear(8, 768, bias=False))
    >>> with pg.patch({"h_3.mlp.output": SplicePatch(module=lora, add=True)}):    # a low-rank adapter (LoRA)
    ...     loss = pg(x).sum()
    >>> with pg.patch({"h_3.output": SplicePatch(module=autoencoder)}):           # a sparse autoencoder (SAE)
    ...     pg(x)

    Attributes:
        module: Takes the value, or the slice of it, and returns a tensor of its shape.
        add: Whether that is added to the value.
    """

    module: nn.Module
    add: bool = False
    slice: Any = None
    requires_clone: bool = field(default=False, init=False)

    def op(self, original_output: Tensor) -> Tensor:
        if self.slice is None:
            made: Tensor = self.module(original_output)
            return original_output + made if self.add else made
        whole, key = original_output.clone(), as_key(self.slice)
        made = self.module(original_output[key])
        whole[key] = original_output[key] + made if self.add else made
        return whole


@dataclass(kw_only=True)
class FreezeNormPatch(SkipPatch):
    """Freezes the scale of a normalization. It is placed at the call of a LayerNorm or an RMSNorm, which then divides
    by the same scale as without the patch, but the scale counts as a constant. So the normalization is linear in its
    input, and gradients are those of that linear map. With ``scale`` it divides by that instead.

    >>> with pg.patch({"**.ln_*": FreezeNormPatch()}):
    ...     effects = pg.attribute(clean, corrupted, "h_*.output", metric=metric)

    Attributes:
        scale: What is divided by, of a shape that broadcasts to the input's; None for this run's own.
    """

    value: Any = field(default=None, init=False)
    scale: Tensor | None = None

    def result(self, module: Any, given: Tensor) -> Tensor:
        """The result of the normalization for an input."""
        if not is_norm(module):
            raise TypeError(f"FreezeNormPatch: a {type(module).__name__} is neither a LayerNorm nor an RMSNorm")
        centered = given
        if not _is_rms(module):
            centered = given - given.mean(_dims(module), keepdim=True)
        scale = self.scale
        if scale is None:
            scale = (centered.detach().square().mean(_dims(module), keepdim=True) + _epsilon(module, given)).sqrt()
        made: Tensor = centered / scale
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        made = made if weight is None else made * weight
        return made if bias is None else made + bias


def _is_rms(module: Any) -> bool:
    return not isinstance(module, nn.LayerNorm)


def _dims(module: Any) -> tuple[int, ...]:
    sizes = getattr(module, "normalized_shape", (0,))
    return tuple(range(-len(sizes), 0))


def _epsilon(module: Any, given: Tensor) -> float:
    for name in ("eps", "variance_epsilon"):
        known = getattr(module, name, None)
        if known is not None:
            return float(known)
    return float(torch.finfo(given.dtype).eps)


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalization by a scale of its input's: LayerNorm, or RMSNorm by whatever library."""
    return isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("RMSNorm")
