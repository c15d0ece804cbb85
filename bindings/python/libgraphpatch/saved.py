"""PatchableGraphs as files: the module and its graph."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeAlias

import torch
from torch.nn import Module

from ._graphs import Graphs
from ._library import lib, made

File: TypeAlias = str | os.PathLike[str] | IO[bytes]

# Of what is in a file; raised when that changes.
VERSION = 1


class _Saved:
    """What is written: reading it makes a PatchableGraph."""

    def __init__(self, module: Module, graph: bytes) -> None:
        self.content = VERSION, module, graph

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, self.content


def save(module: Module, graphs: Graphs, file: File) -> None:
    """Writes both to a file or into an open one."""
    torch.save(_Saved(module, _as_bytes(graphs)), file)


# Makes a PatchableGraph of a module and its graph: the class, which lies above this module, says how.
_makers: list[Callable[[Module, Graphs], Any]] = []


def made_by(maker: Callable[[Module, Graphs], Any]) -> None:
    """Says what makes a PatchableGraph."""
    _makers[:] = [maker]


def restored(version: int, module: Module, graph: bytes) -> Any:
    """What is read of a file comes to this."""
    if version != VERSION:
        raise ValueError(f"the file is of version {version}; this libgraphpatch reads version {VERSION}")
    return _makers[0](module, _from_bytes(graph))


def load(file: File, map_location: Any) -> Any:
    """What a file holds."""
    name = file if isinstance(file, (str, os.PathLike)) else "the file"
    try:
        return torch.load(file, map_location=map_location, weights_only=False)
    except OSError:
        raise
    except Exception as why:
        raise ValueError(f"{name}: is no file that PatchableGraph.save() wrote, or is damaged: {why}") from why


def _as_bytes(graphs: Graphs) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "graph.json"
        graphs.save(file)
        return file.read_bytes()


def _from_bytes(graph: bytes) -> Graphs:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "graph.json"
        file.write_bytes(graph)
        return Graphs(made(lib.gp_graphs_load, str(file).encode()))
