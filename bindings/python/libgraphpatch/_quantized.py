"""Weights that are kept in 8 or 4 bits (bitsandbytes, torchao, torch.ao): the node ``weight`` of such a Linear is the
float value that it stands for, and patches act on that. The layer is then computed from it, in floating point.

What a library keeps is no number of the weight: a patch of it would do nothing, or something else. So weights that are
not known here are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ._optional import needed
from .flow import SkipPatch, original_of
from .patches import Patch


@dataclass(kw_only=True)
class WeightPatch(SkipPatch):
    """The call of a quantized Linear, with patches of its weight. Where these only look, the call is what it was."""

    value: Any = field(default=None, init=False)
    patches: list[Patch[Any]]

    def behind(self, other: SkipPatch) -> WeightPatch:
        """This one where another stands at the same call, in an outer block."""
        return WeightPatch(patches=[*other.patches, *self.patches]) if isinstance(other, WeightPatch) else self

    def result(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """What the call comes to."""
        weight = float_weight(module)
        assert weight is not None  # it was there when the patch was placed
        kept: Any = weight
        for patch in self.patches:
            kept = patch._call(kept)
        if kept is weight:
            return original_of(module)(*args, **kwargs)
        return _linear(module, kept, *args, **kwargs)


def is_quantized(module: nn.Module) -> bool:
    """Whether the weight of a module is kept as something else than its numbers."""
    weight = getattr(module, "weight", None)
    if callable(weight) and not isinstance(weight, Tensor):
        return type(module).__module__.startswith("torch.ao.")
    return isinstance(weight, nn.Parameter) and (_has_own_dequantize(weight) or not _is_number(weight))


def float_weight(module: nn.Module) -> Tensor | None:
    """The value that a quantized weight stands for, as a tensor of its own; None where that is not known."""
    weight: Any = getattr(module, "weight", None)
    names = {kind.__name__ for kind in type(module).__mro__}
    with torch.no_grad():
        if _is_torchs(module):
            return weight().dequantize()
        if not isinstance(module, nn.Linear):
            return None
        if "Linear4bit" in names and getattr(weight, "quant_state", None) is not None:
            functions = needed("bitsandbytes.functional", "bitsandbytes")
            return functions.dequantize_4bit(weight.data, weight.quant_state)
        if "Linear8bitLt" in names:
            return _eight_bits(module)
        if type(module) is nn.Linear and _has_own_dequantize(weight):
            return weight.dequantize().clone()
    return None


def _eight_bits(module: Any) -> Tensor | None:
    """Of a Linear8bitLt: whole numbers, and the largest number of each row."""
    scales = getattr(module.weight, "SCB", None)
    scales = module.state.SCB if scales is None else scales
    if module.weight.dtype != torch.int8 or scales is None:
        return None
    rows: Tensor = module.weight.data.float() * (scales.float().unsqueeze(1) / 127)
    return rows


def _linear(module: Any, weight: Tensor, given: Tensor) -> Tensor:
    if _is_torchs(module):
        made = functional.linear(given.dequantize(), weight.float(), module.bias())
        if type(module).__module__ == _DYNAMIC:
            return made
        return torch.quantize_per_tensor(made, module.scale, module.zero_point, torch.quint8)
    exact = torch.promote_types(given.dtype, weight.dtype)
    bias = None if module.bias is None else module.bias.to(exact)
    return functional.linear(given.to(exact), weight.to(exact), bias).to(given.dtype)


def _is_number(weight: Tensor) -> bool:
    return bool(weight.is_floating_point() or weight.is_complex())


def _has_own_dequantize(weight: Tensor) -> bool:
    return bool(type(weight).dequantize is not Tensor.dequantize)


# The modules of torch.ao of whose Linear the calls are computed here, by name: what is not used is not imported. That
# of the first returns floats.
_DYNAMIC, _STATIC = "torch.ao.nn.quantized.dynamic.modules.linear", "torch.ao.nn.quantized.modules.linear"


def _is_torchs(module: nn.Module) -> bool:
    return type(module).__name__ == "Linear" and type(module).__module__ in (_DYNAMIC, _STATIC)
