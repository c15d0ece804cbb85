"""Code of Python's functions."""

from __future__ import annotations

import types
from collections.abc import Iterator


def nested(code: types.CodeType) -> Iterator[types.CodeType]:
    """``code``, and that of all that is defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from nested(constant)
