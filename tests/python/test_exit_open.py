"""A process that ends while patches hold says nothing of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = """
import sys, threading, torch
from torch import nn
from libgraphpatch import *
net = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
x = torch.ones(2, 4)
pg = PatchableGraph(net, x)
patches = {"sub_0": SkipPatch(value="input"), "sub_1.output": [ProbePatch(), AddPatch(value=torch.ones(4))]}
"""

ENDS = {
    "an edit": "edit = pg.edit(patches)\npg(x)",
    "a block in a generator": "def block():\n with pg.patch(patches):\n  pg(x)\n  yield\nheld = block()\nnext(held)",
    "sys.exit in a block": "with pg.patch(patches):\n pg(x)\n sys.exit(0)",
    "a thread in a block": """
def block():
    with pg.patch(patches, on_missing="ignore"):
        pg(x)
        inside.set()
        threading.Event().wait()
inside = threading.Event()
threading.Thread(target=block, daemon=True).start()
inside.wait()
""",
    "watching": "other = PatchableGraph.watching(net)",
    "a cycle": "pg.patch_of_mine = pg.edit(patches)\nlist(pg.parameters())\npg(x)",
    "a cache and a sweep": "c = pg.cache(x, grads=lambda y: y.sum())\ns = pg.sweep('sub_*.output', x, metric=lambda y: y.sum())",
}


@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_said_at_the_end(end: str) -> None:
    program = f"{BEGIN}\n{ENDS[end]}\n"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0 and not result.stderr and not result.stdout, result.stderr
