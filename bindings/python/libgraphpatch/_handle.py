"""Objects that the library hands over, and that are freed when Python no longer holds them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from ._native import native


class _Owner:
    """Frees an object in Python, where there is no extension that does it.

    It may be freed at the very end of the interpreter, when the names of all modules are gone. So it holds everything
    that freeing needs.
    """

    __slots__ = ("_address", "_free")

    def __init__(self, free: Callable[[int], None], address: int) -> None:
        self._address = address
        self._free = free

    def __del__(self) -> None:
        self._free(self._address)


_addresses: dict[str, int] = {}


def _owner(free: Callable[[int], None], address: int) -> Any:
    if native is None:
        return _Owner(free, address)
    function = _addresses.get(free.__name__)
    if function is None:
        function = _addresses[free.__name__] = ctypes.cast(free, ctypes.c_void_p).value or 0  # type: ignore[arg-type]
    return native.owner(native.Owner, function, address)


class Handle:
    """Owns an object of the library's, and frees it when no reference to this handle is left. It may be passed to a
    call in place of the object's address."""

    __slots__ = ("_as_parameter_", "_owner")

    def __init__(self, free: Callable[[int], None], address: int) -> None:
        # Once there is an owner, no exception of a signal handler's can leave the object behind.
        self._owner = _owner(free, address)
        self._as_parameter_ = address
