"""A patch's value as the library's: a number, or a tensor on any device."""

from __future__ import annotations

from typing import Any

import torch

from ._handle import Handle
from ._library import lib, made


def as_tensor(value: Any) -> torch.Tensor:
    """``value`` as a tensor. Raises a ValueError that says why, if it cannot be one."""
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"the integer {value:.6g} is no value of a patch: it has more than 64 bits with its sign")
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as why:
        refused = f"a {type(value).__name__} is no value of a patch: give a number or a tensor ({why})"
        raise ValueError(refused) from None


def patch_value(value: Any) -> Handle:
    """The library's value. It holds a reference to a tensor, to which gradients flow if it requires them."""
    return Handle(lib.gp_value_free, _made(value))


def _made(value: Any) -> int:
    if isinstance(value, bool):
        return made(lib.gp_value_text, b"true" if value else b"false")
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return made(lib.gp_value_int, value)
    if isinstance(value, float):
        return made(lib.gp_value_float, value)
    if isinstance(value, complex):
        return made(lib.gp_value_text, f"{value.real!r}{value.imag:+}j".encode())
    tensor = as_tensor(value)  # the variable keeps it alive until the library has its own reference
    return made(lib.gp_value_torch, tensor._cdata)
