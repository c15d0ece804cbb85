"""Two numbers that stand for a tensor's values, so that values of two packages can be compared through a file."""

from __future__ import annotations

import torch
from torch import Tensor


def fingerprint(value: Tensor) -> list[float]:
    """The mean, and a mean weighted by position, so that a transposed tensor has a different fingerprint."""
    values = value.detach().to(torch.float64) if not value.is_complex() else torch.view_as_real(value.detach())
    values = values.double().flatten().nan_to_num().clamp(-1000, 1000)  # masks hold the smallest number there is
    if not len(values):
        return [0.0, 0.0]
    weights = torch.linspace(1, 2, len(values), dtype=torch.float64) ** 2
    return [round(float(values.mean()), 6), round(float((values * weights).mean()), 6)]


def same(left: list[float], right: list[float]) -> bool:
    """Equal but for rounding, which differs between versions of torch."""
    return all(abs(a - b) <= 1e-5 + 1e-4 * abs(a) for a, b in zip(left, right, strict=True))
