"""Interventions that put values of one run into another, and those that hold for several runs."""

from __future__ import annotations

from spelling import ATTENTION, BLOCK, MLP, add, pyvene


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
    "activation patching of a head",
    'y = pg.run_with({"transformer.h_0.attn.c_proj.x": ReplacePatch(value='
    'pg.cache(clean, "transformer.h_0.attn.c_proj.x").stack()[0][..., :16], slice=(..., slice(0, 16)))}, corrupted).logits',
    "kept = []\nwith H[0].attn.c_proj.register_forward_pre_hook(lambda m, i: kept.append(i[0])):\n    model(clean)\n"
    "with H[0].attn.c_proj.register_forward_pre_hook(\n"
    "    lambda m, i: torch.cat([kept[0][..., :16], i[0][..., 16:]], -1)\n):\n    y = model(corrupted).logits",
    nnsight="with model.trace() as tracer:\n    with tracer.invoke(clean):\n"
    "        z = model.transformer.h[0].attn.c_proj.input[..., :16]\n    with tracer.invoke(corrupted):\n"
    "        model.transformer.h[0].attn.c_proj.input[..., :16] = z\n        y = model.output.logits.save()",
    TransformerLens="_, cache = model.run_with_cache(clean)\ndef put(v, hook):\n"
    "    v[:, :, 0] = cache[hook.name][:, :, 0]\n    return v\n"
    'y = model.run_with_hooks(corrupted, fwd_hooks=[("blocks.0.attn.hook_z", put)])',
)
exchange(
    "one layer's value in another layer",
    'y = pg.run_with({"transformer.h_1.mlp.output": ReplacePatch(value='
    f'pg.cache(clean, "{MLP}").stack()[0])}}, corrupted).logits',
    KEPT + "with H[1].mlp.register_forward_hook(lambda m, i, o: kept[0]):\n    y = model(corrupted).logits",
    nnsight="with model.trace() as tracer:\n    with tracer.invoke(clean):\n        mlp = model.transformer.h[0].mlp.output\n"
    "    with tracer.invoke(corrupted):\n        model.transformer.h[1].mlp.output = mlp\n"
    "        y = model.output.logits.save()",
    TransformerLens="_, cache = model.run_with_cache(clean)\n"
    'y = model.run_with_hooks(corrupted, fwd_hooks=[("blocks.1.hook_mlp_out", '
    'lambda v, hook: cache["blocks.0.hook_mlp_out"])])',
)
exchange(
    "resample ablation of all MLPs",
    'y = pg.swap(clean, corrupted, "transformer.h_*.mlp.output").logits',
    "kept = []\nhooks = [h.mlp.register_forward_hook(lambda m, i, o: kept.append(o)) for h in H]\nmodel(clean)\n"
    "for hook in hooks:\n    hook.remove()\nvalues = iter(kept)\n"
    "hooks = [h.mlp.register_forward_hook(lambda m, i, o: next(values)) for h in H]\ny = model(corrupted).logits\n"
    "for hook in hooks:\n    hook.remove()",
    TransformerLens="_, cache = model.run_with_cache(clean)\n"
    'y = model.run_with_hooks(corrupted, fwd_hooks=[(lambda n: n.endswith("mlp_out"), '
    "lambda v, hook: cache[hook.name])])",
)
exchange(
    "the effect of every MLP, one at a time",
    'y = pg.sweep("transformer.h_*.mlp.output", x, metric=metric).effect',
    "bare, rows = metric(model(x)), []\nfor h in H:\n"
    "    with h.mlp.register_forward_hook(lambda m, i, o: o * 0):\n        rows.append(metric(model(x)) - bare)\n"
    "y = torch.stack(rows)",
    nnsight="rows = []\nwith model.trace() as tracer:\n    with tracer.invoke(x):\n        bare = metric(model.output).save()\n"
    "    for h in model.transformer.h:\n        with tracer.invoke(x):\n            h.mlp.output[:] = 0\n"
    "            rows.append(metric(model.output).save())\ny = torch.stack(rows) - bare",
    TransformerLens="bare = metric(model(x))\ny = torch.stack([metric(model.run_with_hooks(x, fwd_hooks="
    '[(f"blocks.{n}.hook_mlp_out", lambda v, hook: v * 0)])) - bare for n in range(2)])',
)
exchange(
    "a causal trace, layers × positions",
    'y = pg.sweep("transformer.h_*.output|sub_0", corrupted, positions=range(8), source=clean, metric=metric).values',
    "kept, rows = [], []\nhooks = [h.register_forward_hook(lambda m, i, o: kept.append(o[0])) for h in H]\nmodel(clean)\n"
    "for hook in hooks:\n    hook.remove()\nfor layer in range(2):\n    for at in range(8):\n"
    "        def put(m, i, o):\n            h = o[0].clone()\n            h[:, at] = kept[layer][:, at]\n"
    "            return (h, *o[1:])\n        with H[layer].register_forward_hook(put):\n"
    "            rows.append(metric(model(corrupted)))\ny = torch.stack(rows).reshape(2, 8)",
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

exchange(
    "the clean run's attention pattern",
    f'y = pg.swap(clean, corrupted, "{ATTENTION}").logits',
    "softmax, kept, calls = torch.nn.functional.softmax, model(clean, output_attentions=True).attentions[0], []\n"
    "def own(*args, **kwargs):\n    calls.append(softmax(*args, **kwargs))\n"
    "    return kept if len(calls) == 1 else calls[-1]\n"
    "torch.nn.functional.softmax = own\ny = model(corrupted).logits\ntorch.nn.functional.softmax = softmax",
    nnsight="with model.trace() as tracer:\n    with tracer.invoke(clean):\n"
    "        p = model.transformer.h[0].attn.source.nn_functional_softmax_0.output\n"
    "    with tracer.invoke(corrupted):\n"
    "        model.transformer.h[0].attn.source.nn_functional_softmax_0.output = p\n"
    "        y = model.output.logits.save()",
    TransformerLens="_, cache = model.run_with_cache(clean)\n"
    'y = model.run_with_hooks(corrupted, fwd_hooks=[("blocks.0.attn.hook_pattern", lambda v, hook: cache[hook.name])])',
)
exchange(
    "the clean run's token embeddings",
    'y = pg.swap(clean, corrupted, "transformer.wte.output").logits',
    "with model.transformer.wte.register_forward_hook(lambda m, i, o: m.weight[clean]):\n"
    "    y = model(corrupted).logits",
    nnsight="with model.trace() as tracer:\n    with tracer.invoke(clean):\n"
    "        embedded = model.transformer.wte.output\n    with tracer.invoke(corrupted):\n"
    "        model.transformer.wte.output = embedded\n        y = model.output.logits.save()",
    TransformerLens='y = model.run_with_hooks(corrupted, fwd_hooks=[("hook_embed", lambda v, hook: model.W_E[clean])])',
    baukit='with Trace(model, "transformer.wte") as ret:\n    model(clean)\n'
    'with Trace(model, "transformer.wte", edit_output=lambda o: ret.output):\n    y = model(corrupted).logits',
)
exchange(
    "some dimensions of a value",
    f'y = pg.run_with({{"{MLP}": ReplacePatch(value=pg.cache(clean, "{MLP}").stack()[0][..., :8], '
    "slice=(..., slice(0, 8)))}, corrupted).logits",
    KEPT + "with H[0].mlp.register_forward_hook(lambda m, i, o: torch.cat([kept[0][..., :8], o[..., 8:]], -1)):\n"
    "    y = model(corrupted).logits",
    nnsight="with model.trace() as tracer:\n    with tracer.invoke(clean):\n"
    "        part = model.transformer.h[0].mlp.output[..., :8]\n    with tracer.invoke(corrupted):\n"
    "        model.transformer.h[0].mlp.output[..., :8] = part\n        y = model.output.logits.save()",
    TransformerLens="_, cache = model.run_with_cache(clean)\n"
    'y = model.run_with_hooks(corrupted, fwd_hooks=[("blocks.0.hook_mlp_out", '
    "lambda v, hook: torch.cat([cache[hook.name][..., :8], v[..., 8:]], -1))])",
)
exchange(
    "the part of a value in a rotated subspace",
    f'y = pg.run_with({{"{MLP}": CustomPatch(custom_op=lambda v, there=pg.cache(clean, "{MLP}").stack()[0]: '
    "v + (there - v) @ basis @ basis.T)}, corrupted).logits",
    KEPT + "with H[0].mlp.register_forward_hook(lambda m, i, o: o + (kept[0] - o) @ basis @ basis.T):\n"
    "    y = model(corrupted).logits",
    nnsight="with model.trace() as tracer:\n    with tracer.invoke(clean):\n"
    "        there = model.transformer.h[0].mlp.output\n    with tracer.invoke(corrupted):\n"
    "        mlp = model.transformer.h[0].mlp\n"
    "        mlp.output = mlp.output + (there - mlp.output) @ basis @ basis.T\n"
    "        y = model.output.logits.save()",
    TransformerLens="_, cache = model.run_with_cache(clean)\n"
    'y = model.run_with_hooks(corrupted, fwd_hooks=[("blocks.0.hook_mlp_out", '
    "lambda v, hook: v + (cache[hook.name] - v) @ basis @ basis.T)])",
)
exchange(
    "values of two runs, at two places",
    f'y = pg.run_with({{"{MLP}": ReplacePatch(value=pg.cache(clean, "{MLP}").stack()[0]), '
    '"transformer.h_1.mlp.output": ReplacePatch(value=pg.cache(x, "transformer.h_1.mlp.output").stack()[0])}, '
    "corrupted).logits",
    KEPT + "with H[1].mlp.register_forward_hook(lambda m, i, o: kept.append(o)):\n    model(x)\n"
    "with (\n    H[0].mlp.register_forward_hook(lambda m, i, o: kept[0]),\n"
    "    H[1].mlp.register_forward_hook(lambda m, i, o: kept[1]),\n):\n    y = model(corrupted).logits",
    nnsight="with model.trace() as tracer:\n    with tracer.invoke(clean):\n"
    "        one = model.transformer.h[0].mlp.output\n    with tracer.invoke(x):\n"
    "        two = model.transformer.h[1].mlp.output\n    with tracer.invoke(corrupted):\n"
    "        model.transformer.h[0].mlp.output = one\n        model.transformer.h[1].mlp.output = two\n"
    "        y = model.output.logits.save()",
    TransformerLens="_, one = model.run_with_cache(clean)\n_, two = model.run_with_cache(x)\n"
    'y = model.run_with_hooks(corrupted, fwd_hooks=[("blocks.0.hook_mlp_out", lambda v, hook: one[hook.name]), '
    '("blocks.1.hook_mlp_out", lambda v, hook: two[hook.name])])',
    pyvene='config = pv.IntervenableConfig([{"layer": n, "component": "mlp_output", '
    '"intervention_type": pv.VanillaIntervention} for n in range(2)])\n'
    "y = pv.IntervenableModel(config, model)(base={'input_ids': corrupted}, "
    "sources=[{'input_ids': clean}, {'input_ids': x}])[1].logits",
)
exchange(
    "activation addition: the difference of two prompts",
    f'y = pg.run_with({{"{BLOCK}": AddPatch(value=pg.cache(clean, "{BLOCK}").stack()[0] - '
    f'pg.cache(corrupted, "{BLOCK}").stack()[0])}}, x).logits',
    "kept = []\nwith H[0].register_forward_hook(lambda m, i, o: kept.append(o[0])):\n    model(clean)\n"
    "    model(corrupted)\n"
    "with H[0].register_forward_hook(lambda m, i, o: (o[0] + kept[0] - kept[1], *o[1:])):\n    y = model(x).logits",
    nnsight="with model.trace() as tracer:\n    with tracer.invoke(clean):\n"
    "        one = model.transformer.h[0].output[0]\n    with tracer.invoke(corrupted):\n"
    "        two = model.transformer.h[0].output[0]\n    with tracer.invoke(x):\n"
    "        model.transformer.h[0].output[0][:] += one - two\n        y = model.output.logits.save()",
    TransformerLens='one, two = [model.run_with_cache(t)[1]["blocks.0.hook_resid_post"] for t in (clean, corrupted)]\n'
    'y = model.run_with_hooks(x, fwd_hooks=[("blocks.0.hook_resid_post", lambda v, hook: v + one - two)])',
    baukit='with Trace(model, "transformer.h.0") as one:\n    model(clean)\n'
    'with Trace(model, "transformer.h.0") as two:\n    model(corrupted)\n'
    'with Trace(model, "transformer.h.0", edit_output=lambda o: (o[0] + one.output[0] - two.output[0], *o[1:])):\n'
    "    y = model(x).logits",
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
    "    y = model.generate(x, max_new_tokens=4, do_sample=False, stop_at_eos=False)",
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
add(
    "hold",
    "a steering vector at the first step of a generation only",
    f'with pg.patch({{"{BLOCK}": AddPatch(value=vector, steps=0)}}):\n'
    "    y = pg.generate(x, max_new_tokens=4, do_sample=False)",
    "calls = []\ndef steer(m, i, o):\n    calls.append(o)\n"
    "    return (o[0] + vector, *o[1:]) if len(calls) == 1 else None\n"
    "with H[0].register_forward_hook(steer):\n    y = model.generate(x, max_new_tokens=4, do_sample=False)",
    nnsight="with model.generate(x, max_new_tokens=4, do_sample=False) as tracer:\n"
    "    model.transformer.h[0].output[0][:] += vector\n    y = tracer.result.save()",
)
