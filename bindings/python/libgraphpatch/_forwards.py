"""Pairs of functions: the ``forward`` that a class defines, and the one that a module of it shows while its direct
calls are scopes."""

from __future__ import annotations

import types
from typing import Any

# For each function that a class defines, the function that opens a scope and then calls it; and the other way round.
_seen: dict[Any, Any] = {}
_own: dict[int, tuple[Any, Any]] = {}


def pair(function: types.FunctionType, seen: Any) -> None:
    """Notes that ``seen`` is shown in place of ``function`` from now on."""
    _seen[function] = seen
    _own[id(seen)] = seen, function


def forget() -> None:
    """Forgets all pairs: every class shows its own functions again."""
    _seen.clear()
    _own.clear()


def shown(function: Any) -> Any:
    """The function that ``module.forward`` has outside of the module's scope, if its class defines ``function``."""
    return _seen.get(function, function) if type(function) is types.FunctionType else function


def original(function: Any) -> Any:
    """The function of the class to which a shown function belongs."""
    return _own[id(function)][1] if id(function) in _own else function
