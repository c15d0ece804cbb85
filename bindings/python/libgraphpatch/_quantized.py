"""Weights that are kept in 8 or 4 bits (bitsandbytes, torchao, torch.ao): the node ``weight`` of such a Linear is the
float value that it stands for, and patches act on that. The layer is then computed from it, in floating point.

The tensors that such a library stores are not the numbers of the weight, so patching them would do nothing, or
something else. So patches of quantized weights that are not known here are refused.
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
    """Makes the call of a quantized Linear with patches of its weight. If these only look, the call is as without
    them."""

    value: Any = field(default=None, init=False)
    patches: list[Patch[Any]]

    def _as_now(self) -> WeightPatch:
        return WeightPatch(patches=[patch._as_now() for patch in self.patches])

    def behind(self, other: SkipPatch) -> WeightPatch:
        """This patch, joined with one that an outer block has at the same call."""
        return WeightPatch(patches=[*other.patches, *self.patches]) if isinstance(other, WeightPatch) else self

    def result(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """The result of the call."""
        weight = float_weight(module)
        assert weight is not None  # it was there when the patch was placed
        kept: Any = weight
        for patch in self.patches:
            kept = patch._call(kept)
        if kept is weight:
            return original_of(module)(*args, **kwargs)
        return _linear(module, kept, *args, **kwargs)


def is_quantized(module: nn.Module) -> bool:
    """Whether the weight of a module is stored in another form than its numbers."""
    weight = getattr(module, "weight", None)
    if callable(weight) and not isinstance(weight, Tensor):
        return type(module).__module__.startswith("torch.ao.")
    return isinstance(weight, nn.Parameter) and (_has_own_dequantize(weight) or not _is_number(weight))


def float_weight(module: nn.Module) -> Tensor | None:
    """The value that a quantized weight stands for, as a new tensor. None if this kind of weight is not known here."""
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
    """The weight of a Linear8bitLt, computed from its integers and from the largest absolute value of each row."""
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


# The modules of torch.ao whose Linear is computed here. They are given by name, so that they are not imported unless
# used. The Linear of the first one returns floats.
_DYNAMIC, _STATIC = "torch.ao.nn.quantized.dynamic.modules.linear", "torch.ao.nn.quantized.modules.linear"


def _is_torchs(module: nn.Module) -> bool:
    return type(module).__name__ == "Linear" and type(module).__module__ in (_DYNAMIC, _STATIC)
