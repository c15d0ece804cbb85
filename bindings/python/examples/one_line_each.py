"""One line for each experiment, on a small GPT-2 with random weights: nothing is downloaded.

    python one_line_each.py

Needs transformers.
"""

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from libgraphpatch import FreezeNormPatch, PatchableGraph, ProbePatch, SkipPatch, StopPatch, ZeroPatch

torch.manual_seed(0)
gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=100, n_positions=32, n_embd=32, n_layer=4, n_head=4)).eval()
clean, corrupted = torch.tensor([[5, 17, 3, 42, 8]]), torch.tensor([[5, 17, 9, 42, 8]])
pg = PatchableGraph(gpt2, clean)

RESIDUAL, MLPS = "transformer.h_*.output|sub_0", "transformer.h_*.mlp.output"


def metric(output) -> torch.Tensor:
    return output.logits[0, -1, 7]


# --- look ---

print("softmaxes:", [str(node) for node in pg.graph.find(op="softmax")] or "none: this attention is one operation")
print("MLPs:", *pg.graph.find(module="GPT2MLP"))
print("norms of the MLPs' outputs:", pg.cache(clean, MLPS).norms().stack().shape)
print("gradients:", [*pg.cache(clean, MLPS, grads=metric).grads])
print("kept before it ended:", [*pg.cache(clean, nodes=MLPS, until="transformer.h_1.mlp.output")])

# --- patch ---

with pg.patch({MLPS: ZeroPatch()}) as patched:
    print("without MLPs:", metric(pg(clean)).item(), patched.counts["transformer.h_0.mlp.output"])
with pg.patch({"transformer.h_[12].mlp": SkipPatch(value="hidden_states")}):
    print("two MLPs not called:", metric(pg(clean)).item())
with pg.patch({"transformer.h_0.mlp.output": [probe := ProbePatch(), StopPatch()]}):
    pg(clean)
print("the run ended behind:", tuple(probe.activation.shape))
edit = pg.edit({"transformer.h_3.mlp.output": ZeroPatch(slice=(..., 0))})
print("edited:", metric(pg(clean)).item())
edit.close()

# --- compare two runs ---

print("swapped:", metric(pg.swap(clean, corrupted, "transformer.h_2.mlp.output", positions=[2])).item())
with pg.patch({"transformer.h_*.ln_*": FreezeNormPatch()}):
    effects = pg.attribute(clean, corrupted, MLPS, metric=metric)
print("attributed:", effects.map(lambda value: value.sum()).stack().tolist())
direct = pg.path_patch(clean, corrupted, "transformer.h_0.mlp.output", "transformer.h_3.mlp.hidden_states", freeze=MLPS)
print("along one path:", metric(direct).item())

# --- sweep ---

sweep = pg.sweep(MLPS, corrupted, positions=range(5), source=clean, metric=metric)
print(sweep, *sweep.top(3), sep="\n")
print(pg.check(clean))
