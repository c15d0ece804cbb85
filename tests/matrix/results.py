"""What each host gives for each method and family, beside what plain PyTorch gives."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

import torch

import inside
import outside
import plain
from families import FAMILIES

HOSTS = (*inside.FORMS, *outside.HOSTS)
METHODS = (*plain.METHODS,)


@functools.cache
def reference(family: str, method: str) -> list[torch.Tensor]:
    return plain.METHODS[method](plain_of(family))


@functools.cache
def plain_of(family: str) -> plain.Plain:
    return plain.Plain(FAMILIES[family])


@functools.cache
def host_of(family: str, host: str) -> inside.Inside | outside.Outside:
    if host in inside.FORMS:
        return inside.Inside(FAMILIES[family], host)
    folder = tempfile.TemporaryDirectory()
    made = outside.HOSTS[host](FAMILIES[family], Path(folder.name))
    vars(made)["held"] = folder  # removed with the host
    return made


def result(method: str, family: str, host: str) -> str:
    """What the page says: `equal`, `refused`, or how far the largest of the results is off, relative to the reference."""
    made = host_of(family, host)
    try:
        if isinstance(made, inside.Inside):
            ours = inside.METHODS[method](made)
        else:
            ours = outside.METHODS[method](made)
    except outside.Refused:
        return "refused"
    worst = 0.0
    for one, other in zip(ours, reference(family, method), strict=True):
        assert one.shape == other.shape and other.abs().max() > 0, (one.shape, other.shape)
        worst = max(worst, ((one - other).abs().max() / other.abs().max()).item())
    return "equal" if worst <= 1e-5 else f"off by {worst:.1e}"


def chosen(variable: str, known: list[str]) -> list[str]:
    names = os.environ.get(variable, "").split() or known
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"{variable}: there is no {', '.join(unknown)}; there are {', '.join(known)}")
    return names
