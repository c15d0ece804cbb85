"""Packages that only some methods need."""

from __future__ import annotations

import importlib
from typing import Any


def needed(module: str, package: str) -> Any:
    """The module of a package that may not be there. Raises ImportError that says how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as why:
        raise ImportError(f"this needs the package {package}: `pip install {package}`") from why
