"""Functions that a module's ``forward`` shows while its direct calls are scopes, and those that stand behind them."""

from __future__ import annotations

import types
from typing import Any

# By the function of a class: the one that opens a scope.
_seen: dict[Any, Any] = {}


def pair(function: types.FunctionType, seen: Any) -> None:
    """``seen`` is shown in the place of ``function`` from now on."""
    _seen[function] = seen


def forget() -> None:
    """Every class shows its own functions again."""
    _seen.clear()


def shown(function: Any) -> Any:
    """What a module's ``forward`` shows outside of the module's scope, where its class has ``function``."""
    return _seen.get(function, function) if type(function) is types.FunctionType else function


def behind(function: Any) -> Any:
    """The function of the class that stands behind one that is shown."""
    own = getattr(function, "__wrapped__", None)
    return own if own is not None and shown(own) is function else function
