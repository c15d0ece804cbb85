"""The attributes and methods of :class:`PatchableGraph` that experiments use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._recorder import Recorder


class Recorded:
    """A module, its graph, and the ways to call it with patches."""

    _recorder: Recorder
    module: Any
    graph: Any
    patch: Callable[..., Any]
    parameters: Callable[..., Any]
    __call__: Callable[..., Any]
