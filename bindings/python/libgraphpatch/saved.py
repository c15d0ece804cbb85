"""PatchableGraphs as files: the module and its graph."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import torch
from torch.nn import Module

from ._graphs import Graphs
from ._library import lib, made

if TYPE_CHECKING:
    from .patchable_graph import PatchableGraph

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


def restored(version: int, module: Module, graph: bytes) -> PatchableGraph:
    """What is read of a file comes to this."""
    if version != VERSION:
        raise ValueError(f"the file is of version {version}; this libgraphpatch reads version {VERSION}")
    from .patchable_graph import PatchableGraph  # noqa: PLC0415

    return PatchableGraph._of(module, _from_bytes(graph))


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
