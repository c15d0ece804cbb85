"""libgraphpatch: look inside, and change, any PyTorch module.

>>> from libgraphpatch import PatchableGraph, ZeroPatch
>>> pg = PatchableGraph(model, **inputs)
>>> pg.graph
<root>: Graph(12)
...
>>> with pg.patch({"layers_2.mlp.output": ZeroPatch()}):
...     patched = pg(**inputs)

The classes are those of the Python package graphpatch; nothing is compiled, and the module stays as it is.
"""

from __future__ import annotations

from ._abi import __version__, made as _made, lib as _lib
from .errors import AdapterError, GraphPatchError, PatchError
from .graph import Graphs as _Graphs, NodePath
from .patchable_graph import ExtractionOptions, PatchableGraph
from .patches import AddPatch, CustomPatch, Patch, ProbePatch, RecordPatch, ReplacePatch, ZeroPatch

__all__ = [
    "AdapterError",
    "AddPatch",
    "CustomPatch",
    "ExtractionOptions",
    "GraphPatchError",
    "NodePath",
    "Patch",
    "PatchError",
    "PatchableGraph",
    "ProbePatch",
    "RecordPatch",
    "ReplacePatch",
    "ZeroPatch",
    "load_graph",
]


def load_graph(file: object, index: int = 0) -> NodePath:
    """The root of graph number ``index`` of a file that :meth:`PatchableGraph.save_graph`, ``graphpatch run --graph``
    or the C ABI saved. Raises OSError, and ValueError for a damaged or foreign file, naming the place."""
    return _Graphs(_made(_lib.gp_graphs_load, str(file).encode())).root(index)
