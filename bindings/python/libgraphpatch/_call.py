"""The inputs of a call as one value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from . import _trees


class Call(NamedTuple):
    """The inputs of a module."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, inputs: Any) -> Call:
        """The call with these inputs: a mapping holds keyword arguments, a tuple positional ones; anything else is the
        only argument."""
        if isinstance(inputs, Mapping):
            return cls((), {**inputs})
        return cls(inputs, {}) if isinstance(inputs, tuple) else cls((inputs,), {})

    @property
    def rows(self) -> int | None:
        """How many rows its batch has; None without tensors."""
        return _trees.rows((self.args, self.kwargs))

    def repeated(self, times: int) -> Call:
        """The same call with ``times`` as many rows in its batch."""
        args, kwargs = _trees.repeated((self.args, self.kwargs), self.rows or 0, times)
        return Call(args, kwargs)
