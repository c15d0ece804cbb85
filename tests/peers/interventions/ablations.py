"""Interventions that take something away."""

from __future__ import annotations

from spelling import ATTENTION, MLP, add, edited, hooked, lens, pyvene, sight


def ablation(name: str, path: str, patch: str, reference: str, **peers: str) -> None:
    add("ablate", name, f'y = pg.run_with({{"{path}": {patch}}}, x).logits', reference, **peers)


ablation(
    "a module",
    MLP,
    "ZeroPatch()",
    hooked("H[0].mlp", "o * 0"),
    nnsight=sight("model.transformer.h[0].mlp.output[:] = 0"),
    TransformerLens=lens("blocks.0.hook_mlp_out", "v * 0"),
    baukit=edited("transformer.h.0.mlp", "o * 0"),
    pyvene=pyvene("mlp_output", "ZeroIntervention"),
)
ablation(
    "all MLPs",
    "transformer.h_*.mlp.output",
    "ZeroPatch()",
    "hooks = [h.mlp.register_forward_hook(lambda m, i, o: o * 0) for h in H]\ny = model(x).logits\n"
    "for hook in hooks:\n    hook.remove()",
    nnsight=sight("for h in model.transformer.h:", "    h.mlp.output[:] = 0"),
    TransformerLens='y = model.run_with_hooks(x, fwd_hooks=[(lambda n: n.endswith("mlp_out"), lambda v, hook: v * 0)])',
    baukit='with TraceDict(model, [f"transformer.h.{n}.mlp" for n in range(2)], edit_output=lambda o: o * 0):\n'
    "    y = model(x).logits",
)
ablation(
    "one head",
    "transformer.h_0.attn.c_proj.x",
    "ZeroPatch(slice=(..., slice(0, 16)))",
    "with H[0].attn.c_proj.register_forward_pre_hook(\n"
    "    lambda m, i: torch.cat([i[0][..., :16] * 0, i[0][..., 16:]], -1)\n):\n    y = model(x).logits",
    nnsight=sight("model.transformer.h[0].attn.c_proj.input[..., :16] = 0"),
    TransformerLens=lens("blocks.0.attn.hook_z", "v.index_fill(2, torch.tensor([0]), 0)"),
)
ablation(
    "one neuron",
    "transformer.h_0.mlp.act.output",
    "ZeroPatch(slice=(..., 7))",
    hooked("H[0].mlp.act", "o.index_fill(-1, torch.tensor([7]), 0)"),
    nnsight=sight("model.transformer.h[0].mlp.act.output[..., 7] = 0"),
    TransformerLens=lens("blocks.0.mlp.hook_post", "v.index_fill(-1, torch.tensor([7]), 0)"),
    baukit=edited("transformer.h.0.mlp.act", "o.index_fill(-1, torch.tensor([7]), 0)"),
)
ablation(
    "one position",
    "transformer.h_0.output|sub_0",
    "ZeroPatch(slice=(slice(None), 3))",
    hooked("H[0]", "(o[0].index_fill(1, torch.tensor([3]), 0), *o[1:])"),
    nnsight=sight("model.transformer.h[0].output[0][:, 3] = 0"),
    TransformerLens=lens("blocks.0.hook_resid_post", "v.index_fill(1, torch.tensor([3]), 0)"),
    baukit=edited("transformer.h.0", "(o[0].index_fill(1, torch.tensor([3]), 0), *o[1:])"),
)
ablation(
    "by the mean over positions",
    MLP,
    "CustomPatch(custom_op=lambda v: v.mean(1, True).expand_as(v))",
    hooked("H[0].mlp", "o.mean(1, True).expand_as(o)"),
    nnsight=sight("model.transformer.h[0].mlp.output[:] = model.transformer.h[0].mlp.output.mean(1, True)"),
    TransformerLens=lens("blocks.0.hook_mlp_out", "v.mean(1, True).expand_as(v)"),
    baukit=edited("transformer.h.0.mlp", "o.mean(1, True).expand_as(o)"),
)
ablation(
    "an edge of the attention pattern",
    ATTENTION,
    "ZeroPatch(slice=(..., 5, 2))",
    "softmax = torch.nn.functional.softmax\ncalls = []\n"
    "def without(*args, **kwargs):\n    p = softmax(*args, **kwargs)\n    calls.append(p)\n"
    "    if len(calls) == 1:\n        p[..., 5, 2] = 0\n    return p\n"
    "torch.nn.functional.softmax = without\ny = model(x).logits\ntorch.nn.functional.softmax = softmax",
    nnsight=sight("model.transformer.h[0].attn.source.nn_functional_softmax_0.output[..., 5, 2] = 0"),
    TransformerLens="def without(v, hook):\n    v[..., 5, 2] = 0\n    return v\n"
    'y = model.run_with_hooks(x, fwd_hooks=[("blocks.0.attn.hook_pattern", without)])',
)
ablation(
    "a whole block, which is skipped",
    "transformer.h_0",
    'SkipPatch(value="hidden_states")',
    hooked("H[0]", "(i[0], *o[1:])"),
    nnsight=sight("model.transformer.h[0].skip((model.transformer.h[0].input, None))"),
    TransformerLens='y = model.run_with_hooks(x, fwd_hooks=[(f"blocks.0.hook_{part}_out", lambda v, hook: v * 0) '
    'for part in ("attn", "mlp")])',
    baukit='with Trace(model, "transformer.h.0", retain_input=True, edit_output=lambda o, layer, inputs: (inputs, o[1])):\n'
    "    y = model(x).logits",
)
ablation(
    "a direction, projected out",
    MLP,
    "CustomPatch(custom_op=lambda v: v - (v @ vector)[..., None] * vector)",
    hooked("H[0].mlp", "o - (o @ vector)[..., None] * vector"),
    nnsight=sight(
        "mlp = model.transformer.h[0].mlp", "mlp.output = mlp.output - (mlp.output @ vector)[..., None] * vector"
    ),
    TransformerLens=lens("blocks.0.hook_mlp_out", "v - (v @ vector)[..., None] * vector"),
    baukit=edited("transformer.h.0.mlp", "o - (o @ vector)[..., None] * vector"),
)
ablation(
    "the first row of the batch only",
    MLP,
    "ZeroPatch(slice=0)",
    hooked("H[0].mlp", "o.index_fill(0, torch.tensor([0]), 0)"),
    nnsight=sight("model.transformer.h[0].mlp.output[0] = 0"),
    TransformerLens=lens("blocks.0.hook_mlp_out", "v.index_fill(0, torch.tensor([0]), 0)"),
    baukit=edited("transformer.h.0.mlp", "o.index_fill(0, torch.tensor([0]), 0)"),
)
