"""Compares values bit for bit, through containers of any kind."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module


def digest(value: Any) -> str:
    """A tensor's dtype, shape and bits as short text; a plain value as Python writes it."""
    if not isinstance(value, Tensor):
        return repr(value)
    if torch._C._functorch.is_functorch_wrapped_tensor(value):
        return "a tensor that belongs to a transform"
    if value.is_nested:
        return f"nested({', '.join(map(digest, value.unbind()))})"
    plain = value.detach().resolve_conj().resolve_neg()
    if plain.layout is not torch.strided:
        plain = plain.to_dense()
    octets = plain.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)
    shape = "x".join(map(str, plain.shape))
    return f"{str(plain.dtype)[6:]}({shape})#{hashlib.blake2b(octets.numpy().tobytes(), digest_size=8).hexdigest()}"


def is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def fields(value: Any) -> dict[str, Any]:
    """The elements of a dict, or the fields of a dataclass, by name."""
    if isinstance(value, dict):
        return {str(key): element for key, element in value.items()}
    names = [field.name for field in dataclasses.fields(value)]
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def at(value: Any, dig: list[str]) -> Any:
    """The element of a container to which the names lead."""
    for name in dig:
        if isinstance(value, (tuple, list)):
            value = value[int(name.removeprefix("sub_"))]
        else:
            value = fields(value)[name]
    return value


def digests(value: Any) -> list[str]:
    """The digests of all tensors inside a value, each with the place of the tensor in front."""
    return [f"{place}: {digest(tensor)}" for place, tensor in _tensors(value, "", set())]


def _tensors(value: Any, place: str, met: set[int]) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield place, value
        return
    if id(value) in met or isinstance(value, (str, bytes, int, float, Module, type, torch.dtype, torch.device)):
        return
    met.add(id(value))
    if isinstance(value, (tuple, list)):
        elements = [(str(index), element) for index, element in enumerate(value)]
    elif isinstance(value, dict) or is_record(value):
        elements = list(fields(value).items())
    else:  # another object, for example a cache of keys and values
        elements = [(name, element) for name, element in getattr(value, "__dict__", {}).items() if name[0] != "_"]
    for name, element in elements:
        yield from _tensors(element, f"{place}.{name}", met)


def _named(kind: Any, elements: list[Any]) -> Any:
    return kind(*elements)


def mapped(value: Any, change: Callable[[Tensor], Tensor], named: Callable[[Any, list[Any]], Any] = _named) -> Any:
    """A copy of the value with each tensor in its containers changed; other objects stay. `named` builds named tuples,
    because some of them accept only tensors."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (tuple, list)):
        elements = [mapped(element, change, named) for element in value]
        return named(type(value), elements) if hasattr(value, "_fields") else type(value)(elements)
    if isinstance(value, dict) or is_record(value):
        made = copy.copy(value)
        for name in list(value) if isinstance(value, OrderedDict) else ():
            OrderedDict.move_to_end(made, name)  # keeps the order: copies of transformers' outputs have another one
        for name, element in list(value.items() if isinstance(value, dict) else fields(value).items()):
            new = mapped(element, change, named)
            if new is not element and isinstance(value, dict):
                made[name] = new
            elif new is not element:
                object.__setattr__(made, name, new)
        return made
    return value
