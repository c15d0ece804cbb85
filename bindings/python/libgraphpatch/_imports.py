"""Doing something right behind the import of a module of torch's that a program may import later, or never."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Action = Callable[[ModuleType], None]

# By the module's name.
_waiting: dict[str, Action] = {}


class _Finder:
    """Finds the modules that are waited for as the other finders do."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _waiting:
            return None
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if find is None else find(name, path, target)
            if spec is not None:
                _wait_for(name, spec.loader)
                return spec
        return None


_finder: Any = _Finder()


def _wait_for(name: str, loader: Any) -> None:
    execute = getattr(loader, "exec_module", None)
    if execute is None:
        return

    def exec_module(module: ModuleType) -> None:
        del loader.exec_module
        execute(module)
        _done(name, module)

    loader.exec_module = exec_module


def _done(name: str, module: ModuleType) -> None:
    action = _waiting.pop(name, None)
    if not _waiting and _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    if action is not None:
        action(module)


def behind(name: str, action: Action) -> None:
    """Calls ``action`` with the module of that name: now, if it was imported, or right behind its import."""
    module = sys.modules.get(name)
    if module is not None:
        action(module)
        return
    _waiting[name] = action
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
