"""02: values are kept, and changed, while the model runs. Prints the sum of the output: bare, patched, bare again."""

import torch
from mlp import Mlp

from libgraphpatch import AddPatch, PatchableGraph, ProbePatch, ZeroPatch

torch.manual_seed(0)
x = torch.ones(2, 4)
pg = PatchableGraph(Mlp(4).eval(), x)


def total() -> float:
    with torch.no_grad():
        return pg(x).sum().item()


print(f"bare {total():.6f}")
# Patches at one node act in the order in which they stand: the probe sees the value before the zero.
patches = {"relu": [probe := ProbePatch(), ZeroPatch(slice=(slice(None), slice(8)))], "output": AddPatch(value=0.5)}
with pg.patch(patches) as patched:
    print(f"patched {total():.6f}")
print(f"kept {tuple(probe.activation.shape)}, {patched.counts['output'][0].applied} applied")
print(f"bare again {total():.6f}")

# A path that is not there is refused before anything runs.
try:
    pg.patch({"rleu": ZeroPatch()})
except KeyError as why:
    print("refused:", why.args[0])
