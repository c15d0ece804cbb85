"""01: the tree of a model, the code of a part of it, and a file of it for `graphpatch show` and `graphpatch view`.

python 01_tree.py [GRAPH.json]
"""

import sys

import torch
from mlp import Mlp

from libgraphpatch import PatchableGraph

torch.manual_seed(0)
pg = PatchableGraph(Mlp(4).eval(), torch.ones(2, 4))  # calls the model once, to record it
print(pg.graph)  # the tree; a notebook or a prompt shows it by itself. str() of any other node is its path
print(pg.graph.up._code)
print(pg.graph.up.output._shape, [str(node) for node in pg.graph.find(op="linear")])
if len(sys.argv) > 1:
    pg.save_graph(sys.argv[1])
