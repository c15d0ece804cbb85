"""Doing something right behind the import of a module of torch's that a program may import later, or never.

``sys.meta_path`` stays as the program has it: the finder of the one folder that holds the module is asked through us.
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

# By the module's name, in the order in which they are called.
_waiting: dict[str, list[Action]] = {}
# Finders of folders whose `find_spec` is ours as long as something is waited for.
_finders: list[Any] = []


def behind(name: str, action: Action) -> None:
    """Calls ``action`` with the module of that name: now, if it was imported, or right behind its import.

    The module lies in a package below one that was imported, in the folder that its name says.
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
