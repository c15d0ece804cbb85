"""03: a function as a patch, gradients through it, and values of one run in another one."""

import torch
from mlp import Mlp

from libgraphpatch import CustomPatch, PatchableGraph, ReplacePatch

torch.manual_seed(0)
x, other = torch.ones(2, 4), torch.arange(8.0).reshape(2, 4) / 8
model = Mlp(4)
pg = PatchableGraph(model, x)

with pg.patch({"relu": CustomPatch(custom_op=lambda value: value * 0.5)}):
    pg(x).sum().backward()
print(f"gradient {model.down.weight.grad.sum():.6f}")

with torch.no_grad():
    hidden = pg.cache(other, "relu")["relu"]
    with pg.patch({"relu": ReplacePatch(value=hidden[0], slice=0)}):
        print(f"one row of another run {pg(x).sum():.6f}")
