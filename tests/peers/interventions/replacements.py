"""Interventions that put something else in a value's place."""

from __future__ import annotations

from spelling import ATTENTION, MLP, add, edited, hooked, lens, pyvene, sight


def change(name: str, path: str, patch: str, reference: str, **peers: str) -> None:
    add("change", name, f'y = pg.run_with({{"{path}": {patch}}}, x).logits', reference, **peers)


BLOCK = "transformer.h_0.output|sub_0"
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
    pyvene="class Noise(pv.ConstantSourceIntervention):\n    def forward(self, base, **kwargs):\n"
    "        base[:, 1:4] += noise\n        return base\n"
    'config = pv.IntervenableConfig([{"component": "transformer.wte.output", "intervention_type": Noise}])\n'
    "y = pv.IntervenableModel(config, model)(base={'input_ids': x})[1].logits",
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

# --- values of another run ---


def exchange(name: str, ours: str, torch: str, **peers: str) -> None:
    add("exchange", name, ours, torch, **peers)


KEPT = "kept = []\nwith H[0].mlp.register_forward_hook(lambda m, i, o: kept.append(o)):\n    model(clean)\n"
exchange(
    "activation patching of a module",
    f'y = pg.swap(clean, corrupted, "{MLP}").logits',
    KEPT + "with H[0].mlp.register_forward_hook(lambda m, i, o: kept[0]):\n    y = model(corrupted).logits",
    nnsight="with model.trace() as tracer:\n    with tracer.invoke(clean):\n        mlp = model.transformer.h[0].mlp.output\n"
    "    with tracer.invoke(corrupted):\n        model.transformer.h[0].mlp.output = mlp\n"
    "        y = model.output.logits.save()",
    TransformerLens="_, cache = model.run_with_cache(clean)\n"
    'y = model.run_with_hooks(corrupted, fwd_hooks=[("blocks.0.hook_mlp_out", lambda v, hook: cache[hook.name])])',
    baukit='with Trace(model, "transformer.h.0.mlp") as ret:\n    model(clean)\n'
    'with Trace(model, "transformer.h.0.mlp", edit_output=lambda o: ret.output):\n    y = model(corrupted).logits',
    pyvene=pyvene("mlp_output", "VanillaIntervention", "base={'input_ids': corrupted}, sources=[{'input_ids': clean}]"),
)
exchange(
    "activation patching at one position",
    f'y = pg.swap(clean, corrupted, "{MLP}", positions=[4]).logits',
    KEPT + "def put(m, i, o):\n    o = o.clone()\n    o[:, 4] = kept[0][:, 4]\n    return o\n"
    "with H[0].mlp.register_forward_hook(put):\n    y = model(corrupted).logits",
    nnsight="with model.trace() as tracer:\n    with tracer.invoke(clean):\n"
    "        mlp = model.transformer.h[0].mlp.output[:, 4]\n    with tracer.invoke(corrupted):\n"
    "        model.transformer.h[0].mlp.output[:, 4] = mlp\n        y = model.output.logits.save()",
    TransformerLens="_, cache = model.run_with_cache(clean)\ndef put(v, hook):\n    v[:, 4] = cache[hook.name][:, 4]\n"
    '    return v\ny = model.run_with_hooks(corrupted, fwd_hooks=[("blocks.0.hook_mlp_out", put)])',
    baukit='with Trace(model, "transformer.h.0.mlp") as ret:\n    model(clean)\ndef put(o):\n'
    "    o[:, 4] = ret.output[:, 4]\n    return o\n"
    'with Trace(model, "transformer.h.0.mlp", edit_output=put):\n    y = model(corrupted).logits',
    pyvene=pyvene(
        "mlp_output",
        "VanillaIntervention",
        "base={'input_ids': corrupted}, sources=[{'input_ids': clean}], unit_locations={'sources->base': 4}",
    ),
)
exchange(
    "a position's value, moved to another position",
    f'y = pg.swap(clean, corrupted, "{MLP}", positions=[(2, 5)]).logits',
    KEPT + "def put(m, i, o):\n    o = o.clone()\n    o[:, 5] = kept[0][:, 2]\n    return o\n"
    "with H[0].mlp.register_forward_hook(put):\n    y = model(corrupted).logits",
    nnsight="with model.trace() as tracer:\n    with tracer.invoke(clean):\n"
    "        mlp = model.transformer.h[0].mlp.output[:, 2]\n    with tracer.invoke(corrupted):\n"
    "        model.transformer.h[0].mlp.output[:, 5] = mlp\n        y = model.output.logits.save()",
    pyvene=pyvene(
        "mlp_output",
        "VanillaIntervention",
        "base={'input_ids': corrupted}, sources=[{'input_ids': clean}], unit_locations={'sources->base': (2, 5)}",
    ),
)
exchange(
    "a causal trace, layers × positions",
    'y = pg.sweep("transformer.h_*.output|sub_0", corrupted, positions=range(8), source=clean, metric=metric).values',
    "kept, rows = [], []\nhooks = [h.register_forward_hook(lambda m, i, o: kept.append(o[0])) for h in H]\nmodel(clean)\n"
    "for hook in hooks:\n    hook.remove()\nfor layer in range(2):\n    for at in range(8):\n"
    "        def put(m, i, o):\n            h = o[0].clone()\n            h[:, at] = kept[layer][:, at]\n"
    "            return (h, *o[1:])\n        with H[layer].register_forward_hook(put):\n"
    "            rows.append(metric(model(corrupted)))\ny = torch.stack(rows).reshape(2, 8)",
    TransformerLens="_, cache = model.run_with_cache(clean)\n"
    "y = patching.get_act_patch_resid_post(model, corrupted, cache, metric)",
)
exchange(
    "path patching, from a layer's MLP to the next one's",
    f'y = pg.path_patch(clean, corrupted, "{MLP}", "transformer.h_1.mlp.hidden_states", '
    'freeze="transformer.h_1.attn.output|sub_0").logits',
    KEPT + "frozen, seen = [], []\n"
    "with H[1].attn.register_forward_hook(lambda m, i, o: frozen.append(o[0])):\n    model(corrupted)\n"
    "with (\n    H[0].mlp.register_forward_hook(lambda m, i, o: kept[0]),\n"
    "    H[1].attn.register_forward_hook(lambda m, i, o: (frozen[0], *o[1:])),\n"
    "    H[1].mlp.register_forward_pre_hook(lambda m, i: seen.append(i[0])),\n):\n    model(corrupted)\n"
    "with H[1].mlp.register_forward_pre_hook(lambda m, i: (seen[0],)):\n    y = model(corrupted).logits",
)

# --- several runs ---

add(
    "hold",
    "an edit that stays",
    f'edit = pg.edit({{"{MLP}": ZeroPatch()}})\ny = [model(x).logits, model(clean).logits]\nedit.close()',
    "hook = H[0].mlp.register_forward_hook(lambda m, i, o: o * 0)\ny = [model(x).logits, model(clean).logits]\nhook.remove()",
    nnsight="with model.edit() as edited:\n    model.transformer.h[0].mlp.output[:] = 0\n"
    "with edited.trace(x):\n    one = model.output.logits.save()\n"
    "with edited.trace(clean):\n    two = model.output.logits.save()\ny = [one, two]",
    TransformerLens='model.add_hook("blocks.0.hook_mlp_out", lambda v, hook: v * 0)\n'
    "y = [model(x), model(clean)]\nmodel.reset_hooks()",
)
add(
    "hold",
    "a steering vector while tokens are generated",
    f'with pg.patch({{"{BLOCK}": AddPatch(value=vector)}}):\n    y = pg.generate(x, max_new_tokens=4, do_sample=False)',
    "with H[0].register_forward_hook(lambda m, i, o: (o[0] + vector, *o[1:])):\n"
    "    y = model.generate(x, max_new_tokens=4, do_sample=False)",
    nnsight="with model.generate(x, max_new_tokens=4, do_sample=False) as tracer:\n    with tracer.all():\n"
    "        model.transformer.h[0].output[0][:] += vector\n    y = model.generator.output.save()",
    TransformerLens='with model.hooks(fwd_hooks=[("blocks.0.hook_resid_post", lambda v, hook: v + vector)]):\n'
    "    y = model.generate(x, max_new_tokens=4, do_sample=False)",
    baukit='with Trace(model, "transformer.h.0", edit_output=lambda o: (o[0] + vector, *o[1:])):\n'
    "    y = model.generate(x, max_new_tokens=4, do_sample=False)",
)
add(
    "hold",
    "a module's output at every step of a generation",
    f'with pg.patch({{"{MLP}": (record := RecordPatch())}}):\n'
    "    pg.generate(x, max_new_tokens=3, do_sample=False)\ny = record.activations",
    "y = []\nwith H[0].mlp.register_forward_hook(lambda m, i, o: y.append(o)):\n"
    "    model.generate(x, max_new_tokens=3, do_sample=False)",
    nnsight="with model.generate(x, max_new_tokens=3, do_sample=False) as tracer:\n    y = list().save()\n"
    "    with tracer.all():\n        y.append(model.transformer.h[0].mlp.output)",
)
