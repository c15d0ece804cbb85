"""Calls functions right after the import of a module of torch's, which a program may import later, or never.

``sys.meta_path`` is not changed. Only the finder of the folder that holds the module gets another ``find_spec``.
"""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Action = Callable[[ModuleType], None]

# The functions to call, by the module's name and in their order.
_waiting: dict[str, list[Action]] = {}
# The finders whose `find_spec` is replaced by ours, as long as an import is waited for.
_finders: list[Any] = []


def after_import(name: str, action: Action) -> None:
    """Calls ``action`` with the module of that name: now, if it was imported, or right after its import.

    The module must lie below a package that was imported, in the folder that its name tells.
    """
    module = sys.modules.get(name)
    if module is not None:
        action(module)
        return
    _waiting.setdefault(name, []).append(action)
    package, *folders = name.split(".")[:-1]
    for path in sys.modules[package].__path__:
        _ask_through_us(pkgutil.get_importer(os.path.join(path, *folders)))


def _ask_through_us(finder: Any) -> None:
    if finder is None or any(finder is known for known in _finders):
        return
    find = finder.find_spec

    def find_spec(name: str, target: ModuleType | None = None) -> ModuleSpec | None:
        spec: ModuleSpec | None = find(name, target)
        if spec is not None and name in _waiting:
            _wait_for(name, spec.loader)
        return spec

    finder.find_spec = find_spec
    _finders.append(finder)


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
    actions = _waiting.pop(name, [])
    if not _waiting:
        for finder in _finders:
            vars(finder).pop("find_spec", None)
        _finders.clear()
    for action in actions:
        action(module)
