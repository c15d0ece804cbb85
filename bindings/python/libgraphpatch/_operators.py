"""The operators that the adapter registers with libtorch. By them libtorch's own values are passed to it and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# The operators that were looked up. A look-up takes longer than calling most of them.
_found: dict[str, Callable[..., Any]] = {}


def operator(name: str) -> Callable[..., Any]:
    """The operator ``graphpatch::name``. Raises RuntimeError before the adapter was loaded."""
    found = _found.get(name)
    if found is None:
        found = _found[name] = torch._C._jit_get_operation(f"graphpatch::{name}")[0]
    return found
