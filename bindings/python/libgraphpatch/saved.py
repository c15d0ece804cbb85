"""PatchableGraphs as files: the module and its graph."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeAlias

import torch
from torch.nn import Module

from ._files import beside
from ._graphs import Graphs
from ._library import lib, made

File: TypeAlias = str | os.PathLike[str] | IO[bytes]

# The version of the files' content. It rises when the content changes.
VERSION = 1


class _Saved:
    """The object that is pickled. Unpickling it gives a PatchableGraph."""

    def __init__(self, module: Module, graph: bytes) -> None:
        self.content = VERSION, module, graph

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, self.content


def save(module: Module, graphs: Graphs, file: File) -> None:
    """Writes the module and its graph to a file, which is given by name or open."""
    saved = _Saved(module, _as_bytes(graphs))
    if isinstance(file, (str, os.PathLike)):
        with beside(file) as part:
            torch.save(saved, part)
    else:
        torch.save(saved, file)


# The function that makes a PatchableGraph of a module and its graph. The module of that class imports this one, so it
# registers the function here.
_makers: list[Callable[[Module, Graphs], Any]] = []


def made_by(maker: Callable[[Module, Graphs], Any]) -> None:
    """Registers the function that makes a PatchableGraph."""
    _makers[:] = [maker]


def restored(version: int, module: Module, graph: bytes) -> Any:
    """Called when a file is unpickled, with what it contains."""
    if version != VERSION:
        raise ValueError(f"the file is of version {version}; this libgraphpatch reads version {VERSION}")
    return _makers[0](module, _from_bytes(graph))


def load(file: File, map_location: Any) -> Any:
    """Reads a file and returns the object in it."""
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
