"""Helpers of the models written by hand: weights by module path, edits of values, the causal mask."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

Edit = Callable[[Tensor], Tensor]


class At:
    """Wraps every value of a model written by hand: `at(path, value)` returns the value, or the result of an edit.

    With `seen`, it also keeps a copy of each value as it is before the edit.
    """

    def __init__(self, edits: dict[str, Edit] | None = None, seen: dict[str, Tensor] | None = None) -> None:
        self.edits = edits or {}
        self.seen = seen
        self.done: set[str] = set()

    def __call__(self, path: str, value: Tensor) -> Tensor:
        if self.seen is not None:
            assert path not in self.seen, f"{path} is written twice"
            self.seen[path] = value.detach().clone()
        edit = self.edits.get(path)
        if edit is None:
            return value
        self.done.add(path)
        return edit(value)


class Weights:
    """Parameters and buffers by scope and name: `w("transformer.h_0.ln_1", "weight")`."""

    def __init__(self, model: nn.Module) -> None:
        named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
        self.tensors = dict(named)

    def __call__(self, scope: str, name: str) -> Tensor:
        return self.tensors[re.sub(r"\b(h|layers)_(\d+)", r"\1.\2", f"{scope}.{name}")]


def embedding(w: Weights, at: At, scope: str, ids: Tensor) -> Tensor:
    ids = at(f"{scope}.input", ids)
    weight = at(f"{scope}.weight", w(scope, "weight"))
    return at(f"{scope}.output", at(f"{scope}.embedding", F.embedding(ids, weight)))


def linear(w: Weights, at: At, scope: str, x: Tensor) -> Tensor:
    x = at(f"{scope}.input", x)
    weight = at(f"{scope}.weight", w(scope, "weight"))
    return at(f"{scope}.output", at(f"{scope}.linear", F.linear(x, weight)))


def dropout(at: At, scope: str, x: Tensor) -> Tensor:
    """Dropout in eval mode, which returns the value itself."""
    x = at(f"{scope}.input", x)
    return at(f"{scope}.output", at(f"{scope}.dropout", x))


def literal(at: At, scope: str, number: str, value: Tensor, to: str) -> Tensor:
    """The nodes of `torch.tensor(...)`. Numbers are written between `empty` and `to`; gradients end at `detach_`."""
    at(f"{scope}.empty{number}", torch.empty_like(value))
    value = at(f"{scope}.{to}", value)
    value = at(f"{scope}.lift_fresh{number}", value)
    return at(f"{scope}.detach_{number}", value.detach())


@functools.cache
def vmap_unsqueezes() -> bool:
    """Whether vmap repeats a value that it does not map over by two operations: torch does so since 2.15."""
    called: list[str] = []

    class Log(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.append(function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    value, over = torch.ones(2), torch.zeros(3)
    with Log():
        torch.vmap(lambda _: value)(over)
    assert called in (["expand"], ["unsqueeze", "expand"]), called
    return len(called) == 2


def causal_mask(at: At, scope: str, cache_position: Tensor, to: str) -> Tensor:
    """The mask that `transformers.masking_utils` makes for eager attention, by vmap over single elements."""
    keys = at(f"{scope}.arange_1", torch.arange(cache_position.shape[0]))
    keys = at(f"{scope}.add_", keys + 0)
    at(f"{scope}.arange_2", torch.arange(1))  # batch and head: the causal mask looks at neither
    at(f"{scope}.arange_3", torch.arange(1))
    mask = at(f"{scope}.le", keys[None, :] <= cache_position[:, None])
    for expand, unsqueeze in ("expand", "unsqueeze_1"), ("expand_1", "unsqueeze_2"):
        mask = mask[None]
        if vmap_unsqueezes():
            mask = at(f"{scope}.{unsqueeze}", mask)
        mask = at(f"{scope}.{expand}", mask)
    zero = literal(at, scope, "", torch.tensor(0.0), to)
    return at(f"{scope}.where", torch.where(mask, zero, torch.finfo(torch.float32).min))


def empty_cache(at: At, scope: str) -> tuple[Tensor, Tensor]:
    """The empty keys and values with which `DynamicLayer` begins."""
    keys = literal(at, scope, "", torch.tensor([]), "to")
    return keys, literal(at, scope, "_1", torch.tensor([]), "to_1")
