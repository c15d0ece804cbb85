"""Cells, which keep the last value of a probe until the user asks for it. A run copies the value there without calling
Python."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

from ._gone import when_gone
from ._handle import Handle
from ._library import check, lib
from ._locks import new_lock
from ._operators import operator
from ._patch_function import CALLBACK, Function, functions, numbers


class Cell:
    """A cell of the adapter's.

    Args:
        function: Called with values that the adapter cannot simply copy.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.lock = new_lock()
        number = next(numbers)
        functions[number] = function
        self._address = operator("cell")(CALLBACK.value, number)
        when_gone(self, _free, iter([self._address]), number)

    def describe(self, spec: Handle) -> None:
        """Has the patch of ``spec`` keep its value here."""
        check(lib.gp_spec_custom_torch(spec, operator("cell_function")(), self._address))

    def take(self) -> Any:
        """The value that came last, if one has come since this was called before; or None."""
        return operator("cell_take")(self._address)


def _weakly(probe: Any) -> Callable[[Any], Any]:
    """A function that calls the probe with a value. It does not keep the probe alive."""
    known = weakref.ref(probe)

    def call(value: Any) -> Any:
        probe = known()
        return value if probe is None else probe._call(value)

    return call


def _free(address: Iterator[int], number: int) -> None:
    functions.pop(number, None)
    # One step, in which no signal handler runs. A second call finds no address.
    any(map(operator("cell_free"), address))


class Kept:
    """The attribute ``activation`` of a probe."""

    def __get__(self, probe: Any, kind: Any = None) -> Any:
        if probe is None:
            return None
        cell = vars(probe).get("_cell")
        if cell is not None:
            with cell.lock:
                value = cell.take()
                if value is not None:
                    vars(probe)["activation"] = value
        return vars(probe).get("activation")

    def __set__(self, probe: Any, value: Any) -> None:
        cell = vars(probe).get("_cell")
        if cell is None:
            vars(probe)["activation"] = value
            return
        with cell.lock:
            cell.take()  # drops the value in the cell, which is older than the assigned one
            vars(probe)["activation"] = value


class Keeping(Function):
    """A probe as a patch's function.

    Args:
        spec: The gp_spec that is made to keep its value for the probe.
    """

    def __init__(self, spec: Handle, probe: Any) -> None:
        self._spec, self._call = spec, probe._call
        self._cell = vars(probe).get("_cell")
        if self._cell is None:
            self._cell = vars(probe)["_cell"] = Cell(_weakly(probe))
        self._cell.describe(spec)

    def take_number(self) -> None:
        """To be called if the value is a plain number. A cell cannot keep that, so Python is called."""
        super().__init__(self._spec, self._call)
        super().take_number()

    def close(self) -> None:
        """To be called when no run can reach the cell any more."""
        if hasattr(self, "_number"):
            super().close()
        self._cell = None
