"""Converts what stands between the brackets of ``tensor[...]`` to the library's index."""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Sequence
from typing import Any

import torch

from ._dlpack import DTYPES, lend
from ._handle import Handle
from ._library import check, lib


def add_index(spec: Handle, index: Any) -> None:
    """Appends ``index`` to the spec; None, which is no slice at all, appends nothing."""
    if index is None:
        return
    for item in _items(index):
        _add(spec, item)


def as_key(index: Any) -> Any:
    """``index`` in the form that ``tensor[...]`` takes. None means no slice, so it becomes the whole tensor."""
    if index is None:
        return ...
    items = _items(index)
    return tuple(items) if len(items) != 1 else items[0]


def _items(index: Any) -> Sequence[Any]:
    """The items of an index. A tuple has several; so has a list that is not a list of numbers, as in older NumPy."""
    if isinstance(index, tuple):
        return index
    if isinstance(index, list) and any(
        item is None or item is ... or isinstance(item, (slice, torch.Tensor)) for item in index
    ):
        return index
    return [index]


def _add(spec: Handle, item: Any) -> None:
    if item is None:
        check(lib.gp_spec_slice(spec, b"[None]"))
    elif item is ...:
        check(lib.gp_spec_slice(spec, b"[...]"))
    elif isinstance(item, slice):
        bounds = [bound if bound is None else _integer(bound) for bound in (item.start, item.stop, item.step)]
        texts = ["" if bound is None else str(bound) for bound in bounds]
        check(lib.gp_spec_slice(spec, f"[{':'.join(texts)}]".encode()))
    elif isinstance(item, int) and not isinstance(item, bool):
        check(lib.gp_spec_index(spec, item))
    else:
        _add_tensor(spec, item)


def _integer(bound: Any) -> int:
    try:
        return operator.index(bound)
    except TypeError:
        raise ValueError(f"slice bounds are integers or None, not {type(bound).__name__}") from None


def _add_tensor(spec: Handle, item: Any) -> None:
    try:
        empty = isinstance(item, (list, range)) and not len(item)
        tensor = torch.as_tensor(item, dtype=torch.int64 if empty else None).detach().cpu().contiguous()
    except (TypeError, ValueError, RuntimeError) as why:
        raise ValueError(f"a {type(item).__name__} is no part of a slice ({why})") from None
    if tensor.dim() == 0 and tensor.dtype in (torch.int64, torch.int32):
        check(lib.gp_spec_index(spec, int(tensor)))
        return
    if tensor.dtype not in DTYPES:
        raise ValueError(f"a {tensor.dtype} tensor is no index: give integers or a boolean mask")
    check(lib.gp_spec_index_tensor(spec, ctypes.byref(lend(tensor)), False))
