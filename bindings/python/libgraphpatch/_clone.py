"""Copies of values for patches, of every kind of tensor that libtorch can copy."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import PatchError


def clone(value: Tensor) -> Tensor:
    """A copy, with its history. Raises PatchError for a value of which libtorch makes none."""
    try:
        try:
            return value.clone()
        except NotImplementedError:  # a dtype of fewer than eight bits, which libtorch only stores
            return value.view(torch.uint8).clone().view(value.dtype)
    except (RuntimeError, ValueError) as why:
        said = str(why).partition("\n")[0]
        raise PatchError(f"libtorch cannot copy this {type(value).__name__}: {said}") from None
