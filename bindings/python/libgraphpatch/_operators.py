"""The operators that the adapter registers with libtorch: its calls that take and give libtorch's own values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# Looking one up costs more than most of them do.
_found: dict[str, Callable[..., Any]] = {}


def operator(name: str) -> Callable[..., Any]:
    """The operator ``graphpatch::name``. Raises RuntimeError before the adapter was loaded."""
    found = _found.get(name)
    if found is None:
        found = _found[name] = torch._C._jit_get_operation(f"graphpatch::{name}")[0]
    return found
