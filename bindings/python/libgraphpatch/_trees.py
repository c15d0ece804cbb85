"""Values of calls as trees: lists their tensors, and copies a value with other tensors in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from ._kinds import fields, is_a, is_record
from ._structure import _DEEPEST, _copied_dict, _copied_record, _element, _fields, _is_dict, _rebuilt


def tensors(value: Any, depth: int = 0) -> Iterator[Tensor]:
    """The tensors in it, in order."""
    if is_a(value, Tensor):
        yield value
    elif depth < _DEEPEST and is_a(value, (tuple, list)):
        for element in value:
            yield from tensors(element, depth + 1)
    elif depth < _DEEPEST and (is_record(value) or _is_dict(value)):
        for _, key in _fields(value):
            yield from tensors(_element(value, key), depth + 1)


def mapped(value: Any, function: Callable[[Tensor], Tensor], depth: int = 0) -> Any:
    """The same value with each tensor replaced by what ``function`` returns for it. Other leaves are the same
    objects."""
    if is_a(value, Tensor):
        return function(value)
    if depth < _DEEPEST and is_a(value, (tuple, list)):
        return _rebuilt(value, [mapped(element, function, depth + 1) for element in value])
    if depth < _DEEPEST and _is_dict(value):
        copied = _copied_dict(value)
        for key in [*copied]:
            copied[key] = mapped(copied[key], function, depth + 1)
        return copied
    if depth < _DEEPEST and is_record(value):
        copied = _copied_record(value)
        for name, held in fields(value).items():
            object.__setattr__(copied, name, mapped(held, function, depth + 1))
        return copied
    return value


def rows(value: Any) -> int | None:
    """How many rows a batch has: the first size of its first tensor that has any."""
    return next((tensor.shape[0] for tensor in tensors(value) if tensor.dim()), None)


def repeated(value: Any, count: int, times: int) -> Any:
    """The same value with ``times`` as many rows. Tensors of ``count`` rows are repeated, in new memory; others stay as
    they are."""
    return mapped(value, lambda tensor: _repeated(tensor, count, times))


def _repeated(tensor: Tensor, count: int, times: int) -> Tensor:
    if not tensor.dim() or tensor.shape[0] != count:
        return tensor
    return tensor.clone() if times == 1 else tensor.repeat(times, *[1] * (tensor.dim() - 1))


def part(value: Any, count: int, number: int, times: int) -> Any:
    """Part ``number`` of a value to which :func:`repeated` has given ``times`` as many rows."""
    whole = count * times
    chosen = slice(number * count, (number + 1) * count)
    return mapped(value, lambda tensor: tensor[chosen] if tensor.dim() and tensor.shape[0] == whole else tensor)
