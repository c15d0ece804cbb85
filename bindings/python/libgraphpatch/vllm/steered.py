"""One request while its tokens are computed: its patches in the session, and what its probes keep."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._handle import Handle
from .._index import add_index
from .._library import check, lib, made, text
from .._opened import Counts, counts_of
from .._patch_function import Function
from .._patch_value import patch_value
from .wire import Place, Wire

# The rows of a batch, as ranges without their ends.
Rows = list[tuple[int, int]]


class Steered:
    """One request.

    Args:
        session: The session of the model, which holds the patches.
        device: The model's.
    """

    def __init__(self, wire: Wire, session: Handle, device: torch.device) -> None:
        self.wire, self._session = wire, session
        self._values = [_on(place.value, device) for place in wire.places]
        self._counts = [Counts() for _ in wire.places]
        self._kept: list[dict[int, Tensor]] = [{} for _ in wire.places]
        self.errors: dict[str, None] = {}
        # The rows of each place in the batch that is computed, its number of tokens, and the position of row 0.
        self._now: tuple[int, list[Rows]] = 0, []
        self._offset = 0
        # The places whose patches are registered, the numbers of these, and the functions of probes.
        self._placed: list[int] = []
        self._numbers: Any = None
        self._functions: list[Function] = []
        self._failed = False

    def fail(self, error: Exception) -> None:
        """Takes the patches away for good; the report says why."""
        self._failed = True
        self.errors[f"{type(error).__name__}: {error}"] = None
        self.remove()

    def place(self, start: int, first: int, count: int, total: int) -> None:
        """Has the patches hold for a batch of ``total`` tokens, in which row ``start`` is the token at position
        ``first`` of this request, and ``count`` rows are its own."""
        self._offset = first - start
        now = total, [_rows(place, start, first, count) for place in self.wire.places]
        if now == self._now or self._failed:
            return  # as for most steps: one token, in the same row
        self.remove()
        self._now = now
        placed = [number for number, rows in enumerate(now[1]) if rows]
        if not placed:
            return
        specs = [self._spec(number) for number in placed]
        handles = (ctypes.c_void_p * len(specs))(*[spec._as_parameter_ for spec in specs])
        numbers = (ctypes.c_uint64 * len(specs))()
        check(lib.gp_patch_register_all(self._session, handles, len(specs), numbers))
        self._placed, self._numbers = placed, numbers

    @property
    def holds(self) -> bool:
        return self._numbers is not None

    def remove(self) -> None:
        """Takes the patches away, and counts what they did."""
        self._now = 0, []
        numbers, self._numbers = self._numbers, None
        if numbers is not None:
            self._count(numbers)
            lib.gp_patch_remove_all(self._session, numbers, len(numbers))
        while self._functions:
            self._functions.pop().close()

    def _count(self, numbers: Any) -> None:
        for place, number, new in zip(self._placed, numbers, counts_of(self._session, numbers), strict=True):
            self._counts[place] = Counts(*map(sum, zip(self._counts[place], new, strict=True)))
            if new.failed:
                self.errors[text(lib.gp_patch_last_error, self._session, number)] = None
            elif not new.matched:
                self.errors[f"{self.wire.places[place].path}: the model's call did not come by there"] = None

    def report(self) -> dict[str, Any]:
        """What came of the patches so far."""
        patches = [
            {"path": place.path, "kind": place.kind, "applied": counts.applied, "failed": counts.failed}
            for place, counts in zip(self.wire.places, self._counts, strict=True)
        ]
        return {"patches": patches, **({"errors": [*self.errors]} if self.errors else {})}

    def kept(self, tokens: int) -> dict[str, Tensor]:
        """What the probes have kept of the positions before ``tokens``, by path, and these positions: what was
        computed ahead of tokens that the request never got is left out."""
        found: dict[str, Tensor] = {}
        for place, rows in zip(self.wire.places, self._kept, strict=True):
            positions = sorted(position for position in rows if position < tokens)
            if place.kind != "probe" or not positions:
                continue
            key = _new(place.path, found)
            found[key] = torch.stack([rows[position] for position in positions])
            found[f"{key}#positions"] = torch.tensor(positions)
        return found

    def _spec(self, number: int) -> Handle:
        place, value = self.wire.places[number], self._values[number]
        spec = Handle(lib.gp_spec_free, made(lib.gp_spec_new, place.path.encode()))
        if place.kind == "probe":
            self._functions.append(Function(spec, self._taking(number)))
            return spec
        total, rows = self._now
        # A mask, and not ranges: where a value has another number of rows than the batch has tokens, it does not fit.
        mask = torch.zeros(total, dtype=torch.bool)
        for first, last in rows[number]:
            mask[first:last] = True
        add_index(spec, mask)
        if place.slice:
            check(lib.gp_spec_slice(spec, f"[{place.slice}]".encode()))
        if place.kind == "zero":
            check(lib.gp_spec_zero(spec))
        elif place.kind == "add":
            check(lib.gp_spec_add(spec, value))
        else:
            check(lib.gp_spec_replace(spec, value))
        return spec

    def _taking(self, number: int) -> Callable[[Any], Any]:
        """A function of a probe's. It raises nothing: the run is that of other requests, too."""

        def take(value: Any) -> Any:
            total, rows = self._now
            if not isinstance(value, Tensor) or not value.dim() or value.shape[0] != total:
                sizes = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                self.errors[f"{self.wire.places[number].path}: {total} tokens, and the value is {sizes}"] = None
                return value
            for first, last in rows[number]:
                for row, taken in zip(range(first, last), value[first:last].detach().clone(), strict=True):
                    self._kept[number][row + self._offset] = taken
            return value

        return take


def _on(value: Any, device: torch.device) -> Handle | None:
    """A tensor or a number as a value of the C ABI's, on the device; None for None."""
    if value is None:
        return None
    return patch_value(value.to(device) if isinstance(value, Tensor) else value)


def _rows(place: Place, start: int, first: int, count: int) -> Rows:
    """The rows of the batch that a place means."""
    ends = [(max(low, first), min(high, first + count)) for low, high in place.spans]
    return [(start + low - first, start + high - first) for low, high in ends if low < high]


def _new(path: str, found: dict[str, Tensor]) -> str:
    """A key for a further probe: `PATH`, then `PATH~2`, as of all files of kept values."""
    number = 1
    while (key := path if number == 1 else f"{path}~{number}") in found:
        number += 1
    return key
