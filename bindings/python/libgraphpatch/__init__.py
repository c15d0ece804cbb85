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

import os as _os

from ._graphs import Graphs as _Graphs
from ._library import __version__
from ._library import lib as _lib
from ._library import made as _made
from ._live import live, stop_live
from ._opened import Counts
from ._patch_block import Edit
from ._value_file import load_tensor
from .cache import ActivationCache
from .check import Checked
from .divergence import Divergence
from .errors import (
    AdapterError,
    GraphPatchError,
    MissingPatchWarning,
    OptionWarning,
    PatchError,
    PatchIndexError,
    PatchTypeError,
    Stopped,
)
from .flow import SkipPatch, StopPatch
from .graph import NodePath
from .options import CompiledGraphModule, ExtractionOptions, MultiplyInvokedModule, OpaqueGraphModule
from .patchable_graph import PatchableGraph
from .patches import AddPatch, CustomPatch, Patch, ReplacePatch, ZeroPatch
from .probes import ProbePatch, RecordPatch
from .splices import FreezeNormPatch, SplicePatch
from .sweep import Sweep

__all__ = [
    "ActivationCache",
    "AdapterError",
    "AddPatch",
    "Checked",
    "CompiledGraphModule",
    "Counts",
    "CustomPatch",
    "Divergence",
    "Edit",
    "ExtractionOptions",
    "FreezeNormPatch",
    "GraphPatchError",
    "MissingPatchWarning",
    "MultiplyInvokedModule",
    "NodePath",
    "OpaqueGraphModule",
    "OptionWarning",
    "Patch",
    "PatchError",
    "PatchIndexError",
    "PatchTypeError",
    "PatchableGraph",
    "ProbePatch",
    "RecordPatch",
    "ReplacePatch",
    "SkipPatch",
    "SplicePatch",
    "StopPatch",
    "Stopped",
    "Sweep",
    "ZeroPatch",
    "live",
    "load_graph",
    "load_tensor",
    "stop_live",
    "__version__",
]


def load_graph(file: str | _os.PathLike[str], index: int = 0) -> NodePath:
    """The root of graph number ``index`` of a file that :meth:`PatchableGraph.save_graph`, ``graphpatch run --graph``
    or the C ABI saved. Raises OSError, and ValueError for a damaged or foreign file, naming the place."""
    return NodePath(_Graphs(_made(_lib.gp_graphs_load, str(file).encode())).graph(index), "")
