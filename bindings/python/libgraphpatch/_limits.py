"""The limits of a patch: rows of the batch, positions of the text, and steps of a generation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._generation import TextPart, text_part

_RANGE = re.compile(r"\s*(\d*)\s*\.\.\s*(\d*)\s*|\s*(\d+)\s*")
# The names of the limits, as attributes of a patch.
NAMES = ("rows", "positions", "steps")


class Limits(NamedTuple):
    """The limits that a patch had when it was registered."""

    rows: Any
    positions: Any
    steps: Any


def is_limited(patch: Any) -> bool:
    return any(getattr(patch, name) is not None for name in NAMES)


def check(patch: Any) -> None:
    """Raises a ValueError if a limit is none."""
    for name in NAMES:
        given = getattr(patch, name)
        if given is not None and not (name == "positions" and given in ("prompt", "generated")):
            _numbers(name, given, 1)


def _numbers(name: str, given: Any, size: int) -> Tensor:
    """The indices below ``size`` that a limit means, as a mask."""
    mask = torch.zeros(size, dtype=torch.bool)
    if isinstance(given, str):
        found = _RANGE.fullmatch(given)
        if found is None:
            raise _wrong(name, given)
        if found[3] is not None:
            given = int(found[3])
        else:
            given = slice(int(found[1] or 0), int(found[2]) if found[2] else None)
    if isinstance(given, int) and not isinstance(given, bool):
        given = [given]
    if isinstance(given, slice):
        if any(edge is not None and edge < 0 for edge in (given.start, given.stop)) and name != "rows":
            raise _wrong(name, given)
        mask[given] = True
        return mask
    if isinstance(given, Tensor):
        elements: Any = given
        given = elements.tolist()
    if not isinstance(given, Iterable):
        raise _wrong(name, given)
    for index in given:
        if not isinstance(index, int) or isinstance(index, bool) or (index < 0 and name != "rows"):
            raise _wrong(name, given)
        if -size <= index < size:
            mask[index] = True
    return mask


def spans(name: str, given: Any, size: int) -> list[tuple[int, int]]:
    """The indices below ``size`` that a limit means, as ranges without their ends. Raises a ValueError if it is
    none."""
    none = torch.zeros(1, dtype=torch.int8)
    steps = torch.diff(_numbers(name, given, size).to(torch.int8), prepend=none, append=none)
    edges = steps.nonzero()[:, 0].tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _wrong(name: str, given: Any) -> ValueError:
    words = ", 'prompt', 'generated'" if name == "positions" else ""
    return ValueError(f"{name}={given!r}: give a number, a list of numbers, a range, a slice, '5..', '2..6'{words}")


def _has(name: str, given: Any, index: int) -> bool:
    return bool(_numbers(name, given, index + 1)[index])


def selected(patch: Limits, value: Any) -> Tensor | None:
    """Which elements of the value the patch means in the call that is under way: a mask that broadcasts to the value.
    None if it means none of them."""
    where = text_part()
    if patch.steps is not None:
        if where is None or where.step is None:
            raise ValueError(f"steps={patch.steps!r}: {_unknown(where)}")
        if not _has("steps", patch.steps, where.step):
            return None
    if patch.rows is None and patch.positions is None:
        return torch.ones((), dtype=torch.bool)
    if not isinstance(value, Tensor) or not value.dim():
        raise ValueError("rows= and positions= need a tensor with a batch, and this value has no dimensions")
    mask = _mask(patch, value, where)
    return mask.to(value.device) if bool(mask.any()) else None


def _mask(patch: Limits, value: Tensor, where: TextPart | None) -> Tensor:
    ones = (1,) * (value.dim() - 1)
    batch = value.shape[0] if where is None else where.batch
    # Some operations are given the tokens of all texts in one dimension.
    flat = where is not None and where.length > 1 and value.shape[0] == batch * where.length
    if value.shape[0] != batch and not flat and patch.rows is not None:
        shape = tuple(value.shape)
        raise ValueError(f"rows={patch.rows!r}: the call has {batch} rows, and the value's shape is {shape}")
    rows = torch.ones(1, dtype=torch.bool) if patch.rows is None else _numbers("rows", patch.rows, batch)
    if patch.positions is None and not flat:
        return rows.reshape(-1, *ones)
    if patch.positions is None:
        positions = torch.ones(1 if where is None else where.length, dtype=torch.bool)
    else:
        positions = _positions(patch.positions, where)
    if flat:
        return (rows.expand(batch)[:, None] & positions).reshape(-1, *ones)
    sizes = [1] * value.dim()
    sizes[_dimension(value, where, patch)] = -1
    return rows.reshape(-1, *ones) & positions.reshape(sizes)


def _unknown(where: TextPart | None) -> str:
    if where is None:
        return "this call of the model has no tokens: neither input_ids nor a tensor with two dimensions"
    return "the patch was placed in the middle of a generation, whose first call was not seen"


def _positions(given: Any, where: TextPart | None) -> Tensor:
    """Which of the call's tokens the positions mean."""
    if where is None:
        raise ValueError(f"positions={given!r}: {_unknown(where)}")
    if given in ("prompt", "generated"):
        if where.prompt is None:
            raise ValueError(f"positions={given!r}: {_unknown(where)}")
        given = slice(None, where.prompt) if given == "prompt" else slice(where.prompt, None)
    return _numbers("positions", given, where.first + where.length)[where.first :]


def _dimension(value: Tensor, where: TextPart | None, patch: Limits) -> int:
    """The dimension of the value in which its tokens lie: the second, or the only other one of their number."""
    length = 0 if where is None else where.length
    found = [d for d in range(1, value.dim()) if value.shape[d] == length]
    if found[:1] == [1] and (value.dim() <= 3 or len(found) == 1):
        return 1
    if len(found) == 1:
        return found[0]
    why = "none" if not found else f"{len(found)}"
    raise ValueError(
        f"positions={patch.positions!r}: the call has {length} tokens, and {why} of the value's dimensions"
        f" {tuple(value.shape)} behind the batch has that size: use slice="
    )


def kept(mask: Tensor, value: Any) -> Any:
    """The part of the value that the mask means: whole rows and positions."""
    if not isinstance(value, Tensor) or not mask.dim():
        return value
    for dimension, size in enumerate(mask.shape):
        if size > 1:
            others = tuple(d for d in range(mask.dim()) if d != dimension)
            chosen = mask.any(dim=others) if others else mask
            value = value.index_select(dimension, chosen.nonzero()[:, 0])
    return value


def joined(mask: Tensor, after: Any, before: Any) -> Any:
    """``after`` where the mask holds, and elsewhere ``before``."""
    if not mask.dim():
        return after
    if not isinstance(after, Tensor) or after.shape != before.shape:
        raise ValueError("a patch with rows= or positions= returned a value of another shape")
    return torch.where(mask, after.to(before.dtype), before)
