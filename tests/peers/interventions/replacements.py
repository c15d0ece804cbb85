"""Interventions that put something else in a value's place."""

from __future__ import annotations

from spelling import ATTENTION, BLOCK, MLP, add, edited, hooked, lens, pyvene, sight


def change(name: str, path: str, patch: str, reference: str, **peers: str) -> None:
    add("change", name, f'y = pg.run_with({{"{path}": {patch}}}, x).logits', reference, **peers)


change(
    "a steering vector at all positions",
    BLOCK,
    "AddPatch(value=vector)",
    hooked("H[0]", "(o[0] + vector, *o[1:])"),
    nnsight=sight("model.transformer.h[0].output[0][:] += vector"),
    TransformerLens=lens("blocks.0.hook_resid_post", "v + vector"),
    baukit=edited("transformer.h.0", "(o[0] + vector, *o[1:])"),
    pyvene=pyvene("block_output", "AdditionIntervention", "base={'input_ids': x}, source_representations=vector"),
)
change(
    "a steering vector at the last position",
    BLOCK,
    "AddPatch(value=vector, slice=(slice(None), -1))",
    "def steer(m, i, o):\n    h = o[0].clone()\n    h[:, -1] += vector\n    return (h, *o[1:])\n"
    "with H[0].register_forward_hook(steer):\n    y = model(x).logits",
    nnsight=sight("model.transformer.h[0].output[0][:, -1] += vector"),
    TransformerLens="def steer(v, hook):\n    v[:, -1] += vector\n    return v\n"
    'y = model.run_with_hooks(x, fwd_hooks=[("blocks.0.hook_resid_post", steer)])',
    baukit="def steer(o):\n    o[0][:, -1] += vector\n    return o\n"
    'with Trace(model, "transformer.h.0", edit_output=steer):\n    y = model(x).logits',
)
change(
    "a scaled module",
    MLP,
    "CustomPatch(custom_op=lambda v: v * 3)",
    hooked("H[0].mlp", "o * 3"),
    nnsight=sight("model.transformer.h[0].mlp.output[:] *= 3"),
    TransformerLens=lens("blocks.0.hook_mlp_out", "v * 3"),
    baukit=edited("transformer.h.0.mlp", "o * 3"),
)
change(
    "clamped activations",
    "transformer.h_0.mlp.act.output",
    "CustomPatch(custom_op=lambda v: v.clamp(max=0.1))",
    hooked("H[0].mlp.act", "o.clamp(max=0.1)"),
    nnsight=sight("model.transformer.h[0].mlp.act.output.clamp_(max=0.1)"),
    TransformerLens=lens("blocks.0.mlp.hook_post", "v.clamp(max=0.1)"),
    baukit=edited("transformer.h.0.mlp.act", "o.clamp(max=0.1)"),
)
change(
    "noise on the embeddings of some tokens",
    "transformer.wte.output",
    "AddPatch(value=noise, slice=(slice(None), slice(1, 4)))",
    "def corrupt(m, i, o):\n    o = o.clone()\n    o[:, 1:4] += noise\n    return o\n"
    "with model.transformer.wte.register_forward_hook(corrupt):\n    y = model(x).logits",
    nnsight=sight("model.transformer.wte.output[:, 1:4] += noise"),
    TransformerLens="def corrupt(v, hook):\n    v[:, 1:4] += noise\n    return v\n"
    'y = model.run_with_hooks(x, fwd_hooks=[("hook_embed", corrupt)])',
    baukit="def corrupt(o):\n    o[:, 1:4] += noise\n    return o\n"
    'with Trace(model, "transformer.wte", edit_output=corrupt):\n    y = model(x).logits',
)
change(
    "another attention pattern",
    ATTENTION,
    "CustomPatch(custom_op=lambda p: torch.eye(8).expand_as(p))",
    "softmax = torch.nn.functional.softmax\ncalls = []\n"
    "def own(*args, **kwargs):\n    p = softmax(*args, **kwargs)\n    calls.append(p)\n"
    "    return torch.eye(8).expand_as(p) if len(calls) == 1 else p\n"
    "torch.nn.functional.softmax = own\ny = model(x).logits\ntorch.nn.functional.softmax = softmax",
    nnsight=sight(
        "attn = model.transformer.h[0].attn.source.nn_functional_softmax_0",
        "attn.output = torch.eye(8).expand_as(attn.output)",
    ),
    TransformerLens=lens("blocks.0.attn.hook_pattern", "torch.eye(8).expand_as(v)"),
)
change(
    "other logits",
    "lm_head.output",
    "ReplacePatch(value=-9.0, slice=(..., 7))",
    hooked("model.lm_head", "o.index_fill(-1, torch.tensor([7]), -9.0)"),
    nnsight=sight("model.lm_head.output[..., 7] = -9"),
    baukit=edited("lm_head", "o.index_fill(-1, torch.tensor([7]), -9.0)"),
)
change(
    "other token ids at the input",
    "input_ids",
    "ReplacePatch(value=9, slice=(slice(None), 2))",
    "y = model(x.index_fill(1, torch.tensor([2]), 9)).logits",
    nnsight="with model.trace(x.index_fill(1, torch.tensor([2]), 9)):\n    y = model.output.logits.save()",
    TransformerLens="y = model(x.index_fill(1, torch.tensor([2]), 9))",
)
change(
    "one row of a weight, for one run",
    "transformer.h_0.mlp.c_fc.weight",
    "ZeroPatch(slice=3)",
    "weight = H[0].mlp.c_fc.weight.index_fill(0, torch.tensor([3]), 0)\n"
    'y = torch.func.functional_call(model, {"transformer.h.0.mlp.c_fc.weight": weight}, (x,)).logits',
)
change(
    "a sparse autoencoder in the residual stream",
    BLOCK,
    "SplicePatch(module=sae)",
    hooked("H[0]", "(sae(o[0]), *o[1:])"),
    nnsight=sight("h = model.transformer.h[0]", "h.output = (sae(h.output[0]), *h.output[1:])"),
    TransformerLens=lens("blocks.0.hook_resid_post", "sae(v)"),
    baukit=edited("transformer.h.0", "(sae(o[0]), *o[1:])"),
)
change(
    "a low-rank adapter beside a module",
    MLP,
    "SplicePatch(module=lora, add=True)",
    hooked("H[0].mlp", "o + lora(o)"),
    nnsight=sight("mlp = model.transformer.h[0].mlp", "mlp.output = mlp.output + lora(mlp.output)"),
    TransformerLens=lens("blocks.0.hook_mlp_out", "v + lora(v)"),
    baukit=edited("transformer.h.0.mlp", "o + lora(o)"),
)
change(
    "two positions, exchanged",
    BLOCK,
    "CustomPatch(custom_op=lambda v: v[:, [0, 5, 2, 3, 4, 1, 6, 7]])",
    hooked("H[0]", "(o[0][:, [0, 5, 2, 3, 4, 1, 6, 7]], *o[1:])"),
    nnsight=sight("h = model.transformer.h[0].output[0]", "h[:] = h[:, [0, 5, 2, 3, 4, 1, 6, 7]]"),
    TransformerLens=lens("blocks.0.hook_resid_post", "v[:, [0, 5, 2, 3, 4, 1, 6, 7]]"),
    baukit=edited("transformer.h.0", "(o[0][:, [0, 5, 2, 3, 4, 1, 6, 7]], *o[1:])"),
)

change(
    "queries and keys, exchanged",
    "transformer.h_0.attn.c_attn.output",
    "CustomPatch(custom_op=lambda v: v.roll(32, -1))",
    hooked("H[0].attn.c_attn", "o.roll(32, -1)"),
    nnsight=sight("c = model.transformer.h[0].attn.c_attn", "c.output = c.output.roll(32, -1)"),
    baukit=edited("transformer.h.0.attn.c_attn", "o.roll(32, -1)"),
)
change(
    "a neuron, set to a number",
    "transformer.h_0.mlp.act.output",
    "ReplacePatch(value=5.0, slice=(..., 7))",
    hooked("H[0].mlp.act", "o.index_fill(-1, torch.tensor([7]), 5.0)"),
    nnsight=sight("model.transformer.h[0].mlp.act.output[..., 7] = 5"),
    TransformerLens=lens("blocks.0.mlp.hook_post", "v.index_fill(-1, torch.tensor([7]), 5.0)"),
    baukit=edited("transformer.h.0.mlp.act", "o.index_fill(-1, torch.tensor([7]), 5.0)"),
)
change(
    "softer attention",
    "transformer.h_0.attn.add",
    "CustomPatch(custom_op=lambda v: v / 2)",
    "softmax = torch.nn.functional.softmax\ncalls = []\n"
    "def soft(scores, *args, **kwargs):\n    calls.append(scores)\n"
    "    return softmax(scores / 2 if len(calls) == 1 else scores, *args, **kwargs)\n"
    "torch.nn.functional.softmax = soft\ny = model(x).logits\ntorch.nn.functional.softmax = softmax",
    TransformerLens=lens("blocks.0.attn.hook_attn_scores", "v / 2"),
)
change(
    "the rows of a batch, exchanged in the middle",
    BLOCK,
    "CustomPatch(custom_op=lambda v: v.flip(0))",
    hooked("H[0]", "(o[0].flip(0), *o[1:])"),
    nnsight=sight("h = model.transformer.h[0].output[0]", "h[:] = h.flip(0)"),
    TransformerLens=lens("blocks.0.hook_resid_post", "v.flip(0)"),
    baukit=edited("transformer.h.0", "(o[0].flip(0), *o[1:])"),
)
change(
    "a frozen scale of the last LayerNorm",
    "transformer.ln_f",
    "FreezeNormPatch(scale=torch.tensor(2.0))",
    "f = model.transformer.ln_f\n"
    "with f.register_forward_hook(\n"
    "    lambda m, i, o: (i[0] - i[0].mean(-1, True)) / 2 * f.weight + f.bias\n):\n    y = model(x).logits",
    nnsight=sight(
        "f = model.transformer.ln_f", "f.output = (f.input - f.input.mean(-1, True)) / 2 * f.weight + f.bias"
    ),
    TransformerLens=lens("ln_final.hook_scale", "v * 0 + 2"),
)
change(
    "another input of a module",
    "transformer.h_1.mlp.hidden_states",
    "AddPatch(value=vector)",
    "with H[1].mlp.register_forward_pre_hook(lambda m, i: i[0] + vector):\n    y = model(x).logits",
    nnsight=sight("mlp = model.transformer.h[1].mlp", "mlp.input = mlp.input + vector"),
    TransformerLens=lens("blocks.1.ln2.hook_normalized", "v + vector"),
)
change(
    "a value taken through a bottleneck of two directions",
    MLP,
    "CustomPatch(custom_op=lambda v: v @ basis @ basis.T)",
    hooked("H[0].mlp", "o @ basis @ basis.T"),
    nnsight=sight("mlp = model.transformer.h[0].mlp", "mlp.output = mlp.output @ basis @ basis.T"),
    TransformerLens=lens("blocks.0.hook_mlp_out", "v @ basis @ basis.T"),
    baukit=edited("transformer.h.0.mlp", "o @ basis @ basis.T"),
)
