"""Interventions that only look: values, gradients, and what is computed from them."""

from __future__ import annotations

from spelling import ATTENTION, MLP, add

add(
    "read",
    "the output of a module",
    f'y = pg.cache(x, "{MLP}")["{MLP}"]',
    "kept = []\nwith H[0].mlp.register_forward_hook(lambda m, i, o: kept.append(o)):\n    model(x)\ny = kept[0]",
    nnsight="with model.trace(x):\n    y = model.transformer.h[0].mlp.output.save()",
    TransformerLens='y = model.run_with_cache(x)[1]["blocks.0.hook_mlp_out"]',
    baukit='with Trace(model, "transformer.h.0.mlp") as ret:\n    model(x)\ny = ret.output',
    TorchLens='y = tl.log_forward_pass(model, x)["transformer.h.0.mlp"].tensor_contents',
)
add(
    "read",
    "the input of a module",
    'y = pg.cache(x, "transformer.h_1.mlp.hidden_states")["transformer.h_1.mlp.hidden_states"]',
    "kept = []\nwith H[1].mlp.register_forward_pre_hook(lambda m, i: kept.append(i[0])):\n    model(x)\ny = kept[0]",
    nnsight="with model.trace(x):\n    y = model.transformer.h[1].mlp.input.save()",
    TransformerLens='y = model.run_with_cache(x)[1]["blocks.1.ln2.hook_normalized"]',
    baukit='with Trace(model, "transformer.h.1.mlp", retain_input=True) as ret:\n    model(x)\ny = ret.input',
)
add(
    "read",
    "the residual stream after every layer",
    'y = pg.cache(x, "transformer.h_*.output|sub_0").stack()',
    "kept = []\nhooks = [h.register_forward_hook(lambda m, i, o: kept.append(o[0])) for h in H]\nmodel(x)\n"
    "for hook in hooks:\n    hook.remove()\ny = torch.stack(kept)",
    nnsight="with model.trace(x):\n    y = torch.stack([h.output[0] for h in model.transformer.h]).save()",
    TransformerLens='y = model.run_with_cache(x)[1].stack_activation("resid_post")',
    baukit='with TraceDict(model, [f"transformer.h.{n}" for n in range(2)]) as ret:\n    model(x)\n'
    "y = torch.stack([r.output[0] for r in ret.values()])",
)
add(
    "read",
    "the attention pattern of a layer",
    f'y = pg.cache(x, "{ATTENTION}")["{ATTENTION}"]',
    "y = model(x, output_attentions=True).attentions[0]",
    nnsight="with model.trace(x, output_attentions=True):\n    y = model.output.attentions[0].save()",
    TransformerLens='y = model.run_with_cache(x)[1]["blocks.0.attn.hook_pattern"]',
)
add(
    "read",
    "the queries, keys and values of a layer",
    'y = pg.cache(x, "transformer.h_1.attn.c_attn.output").stack()[0].split(32, dim=-1)',
    "kept = []\nwith H[1].attn.c_attn.register_forward_hook(lambda m, i, o: kept.append(o)):\n    model(x)\n"
    "y = kept[0].split(32, dim=-1)",
    nnsight="with model.trace(x):\n    y = model.transformer.h[1].attn.c_attn.output.split(32, dim=-1).save()",
    TransformerLens='_, cache = model.run_with_cache(x)\ny = [cache[f"blocks.1.attn.hook_{part}"] for part in "qkv"]',
)
add(
    "read",
    "a layer, without computing what follows",
    'y = pg.cache(x, "transformer.h_0.output|sub_0", until="transformer.h_0.output|sub_0").stack()[0]',
    "class Done(Exception):\n    pass\ndef stop(m, i, o):\n    kept.append(o[0])\n    raise Done\nkept = []\n"
    "try:\n    with H[0].register_forward_hook(stop):\n        model(x)\nexcept Done:\n    pass\ny = kept[0]",
    nnsight="with model.trace(x) as tracer:\n    y = model.transformer.h[0].output[0].save()\n    tracer.stop()",
    TransformerLens='y = model.run_with_cache(x, stop_at_layer=1)[1]["blocks.0.hook_resid_post"]',
    baukit='with Trace(model, "transformer.h.0", stop=True) as ret:\n    model(x)\ny = ret.output[0]',
)
add(
    "read",
    "the norm of every layer's output",
    'y = pg.cache(x, "transformer.h_*.output|sub_0").norms().stack()',
    "kept = []\nhooks = [h.register_forward_hook(lambda m, i, o: kept.append(o[0].norm(dim=-1))) for h in H]\nmodel(x)\n"
    "for hook in hooks:\n    hook.remove()\ny = torch.stack(kept)",
    nnsight="with model.trace(x):\n    y = torch.stack([h.output[0].norm(dim=-1) for h in model.transformer.h]).save()",
    TransformerLens='y = model.run_with_cache(x)[1].stack_activation("resid_post").norm(dim=-1)',
)
add(
    "read",
    "the logit lens",
    'y = model.lm_head(model.transformer.ln_f(pg.cache(x, "transformer.h_*.output|sub_0").stack()))',
    "kept = []\nhooks = [h.register_forward_hook(lambda m, i, o: kept.append(o[0])) for h in H]\nmodel(x)\n"
    "for hook in hooks:\n    hook.remove()\ny = model.lm_head(model.transformer.ln_f(torch.stack(kept)))",
    nnsight="with model.trace(x):\n"
    "    hidden = torch.stack([h.output[0] for h in model.transformer.h])\n"
    "    y = model.lm_head(model.transformer.ln_f(hidden)).save()",
    TransformerLens='y = model.unembed(model.ln_final(model.run_with_cache(x)[1].stack_activation("resid_post")))',
)

# --- gradients ---

add(
    "gradients",
    "the gradient at a node",
    f'y = pg.cache(x, "{MLP}", grads=metric).grads["{MLP}"]',
    "kept = []\nwith H[0].mlp.register_forward_hook(lambda m, i, o: kept.append(o)):\n    loss = metric(model(x))\n"
    "y = torch.autograd.grad(loss, kept[0])[0]",
    nnsight="with model.trace(x):\n    hidden = model.transformer.h[0].mlp.output\n"
    "    with metric(model.output).backward():\n        y = hidden.grad.save()",
    TransformerLens='kept = {}\nmodel.add_hook("blocks.0.hook_mlp_out", lambda g, hook: kept.update(y=g), dir="bwd")\n'
    'metric(model(x)).backward()\ny = kept["y"]',
    baukit='with Trace(model, "transformer.h.0.mlp", retain_grad=True) as ret:\n    metric(model(x)).backward()\n'
    "y = ret.output.grad",
)
add(
    "gradients",
    "attribution patching",
    'y = pg.attribute(clean, corrupted, "transformer.h_0.mlp.output", metric=metric).stack()[0]',
    "kept = []\nwith H[0].mlp.register_forward_hook(lambda m, i, o: kept.append(o)):\n    model(clean)\n"
    "    loss = metric(model(corrupted))\n"
    "y = (kept[0] - kept[1]).detach() * torch.autograd.grad(loss, kept[1])[0]",
    nnsight="with model.trace(clean):\n    there = model.transformer.h[0].mlp.output.save()\n"
    "with model.trace(corrupted):\n    here = model.transformer.h[0].mlp.output\n"
    "    with metric(model.output).backward():\n        y = ((there - here) * here.grad).save()",
)
add(
    "gradients",
    "a direct effect without the gradient's way through a module",
    'y = torch.autograd.grad(metric(pg.run_with({"transformer.h_1.mlp.output": ZeroPatch(on="grad")}, x)), '
    "H[0].mlp.c_fc.weight)[0]",
    "with H[1].mlp.register_forward_hook(lambda m, i, o: o.detach()):\n    loss = metric(model(x))\n"
    "y = torch.autograd.grad(loss, H[0].mlp.c_fc.weight)[0]",
    nnsight="with model.trace(x):\n    model.transformer.h[1].mlp.output.grad = 0\n    metric(model.output).backward()\n"
    "    y = model.transformer.h[0].mlp.c_fc.weight.grad.save()",
)
add(
    "gradients",
    "the gradients of all layers",
    'y = pg.cache(x, "transformer.h_*.output|sub_0", grads=metric).grads.stack()',
    "kept = []\nhooks = [h.register_forward_hook(lambda m, i, o: kept.append(o[0])) for h in H]\n"
    "loss = metric(model(x))\nfor hook in hooks:\n    hook.remove()\ny = torch.stack(torch.autograd.grad(loss, kept))",
    nnsight="with model.trace(x):\n    hidden = [h.output[0] for h in model.transformer.h]\n"
    "    with metric(model.output).backward():\n        y = torch.stack([h.grad for h in reversed(hidden)]).save()",
)
add(
    "gradients",
    "gradient times activation, by position",
    f'y = pg.attribute(x, corrupted, "{MLP}", metric=metric).map(lambda value: value.sum(-1)).stack()[0]',
    "kept = []\nwith H[0].mlp.register_forward_hook(lambda m, i, o: kept.append(o)):\n    model(x)\n"
    "    loss = metric(model(corrupted))\n"
    "y = ((kept[0] - kept[1]).detach() * torch.autograd.grad(loss, kept[1])[0]).sum(-1)",
)
add(
    "read",
    "the scores before the softmax",
    'y = pg.cache(x, "transformer.h_0.attn.add").stack()[0]',
    "softmax, kept = torch.nn.functional.softmax, []\n"
    "def seen(scores, *args, **kwargs):\n    kept.append(scores)\n    return softmax(scores, *args, **kwargs)\n"
    "torch.nn.functional.softmax = seen\nmodel(x)\ntorch.nn.functional.softmax = softmax\ny = kept[0]",
    nnsight="with model.trace(x):\n"
    "    y = model.transformer.h[0].attn.source.nn_functional_softmax_0.inputs[0][0].save()",
    TransformerLens='y = model.run_with_cache(x)[1]["blocks.0.attn.hook_attn_scores"]',
)
add(
    "read",
    "what one layer adds to the residual stream",
    'y = pg.cache(x, "transformer.h_1.{hidden_states,output|sub_0}").stack().diff(dim=0)[0]',
    "kept = []\nwith H[1].register_forward_hook(lambda m, i, o: kept.append(o[0] - i[0])):\n    model(x)\ny = kept[0]",
    nnsight="with model.trace(x):\n    h = model.transformer.h[1]\n    y = (-h.input + h.output[0]).save()",
    TransformerLens="_, cache = model.run_with_cache(x)\n"
    'y = cache["blocks.1.hook_resid_post"] - cache["blocks.1.hook_resid_pre"]',
)
add(
    "read",
    "a value under another intervention",
    'with pg.patch({"transformer.h_0.mlp.output": ZeroPatch()}):\n'
    '    y = pg.cache(x, "transformer.h_1.mlp.output").stack()[0]',
    "kept = []\nwith (\n    H[0].mlp.register_forward_hook(lambda m, i, o: o * 0),\n"
    "    H[1].mlp.register_forward_hook(lambda m, i, o: kept.append(o)),\n):\n    model(x)\ny = kept[0]",
    nnsight="with model.trace(x):\n    model.transformer.h[0].mlp.output[:] = 0\n"
    "    y = model.transformer.h[1].mlp.output.save()",
    TransformerLens='with model.hooks(fwd_hooks=[("blocks.0.hook_mlp_out", lambda v, hook: v * 0)]):\n'
    '    y = model.run_with_cache(x)[1]["blocks.1.hook_mlp_out"]',
)
add(
    "read",
    "the attention patterns of all layers",
    'y = pg.cache(x, "transformer.h_*.attn.softmax").stack()',
    "y = torch.stack(model(x, output_attentions=True).attentions)",
    nnsight="with model.trace(x, output_attentions=True):\n    y = torch.stack(model.output.attentions).save()",
    TransformerLens='y = model.run_with_cache(x)[1].stack_activation("pattern")',
)
add(
    "read",
    "how spread out each head's attention is (entropy)",
    'y = pg.cache(x, "transformer.h_*.attn.softmax").map(lambda p: torch.special.entr(p).sum(-1)).stack()',
    "y = torch.special.entr(torch.stack(model(x, output_attentions=True).attentions)).sum(-1)",
    nnsight="with model.trace(x, output_attentions=True):\n"
    "    y = torch.special.entr(torch.stack(model.output.attentions)).sum(-1).save()",
    TransformerLens='y = torch.special.entr(model.run_with_cache(x)[1].stack_activation("pattern")).sum(-1)',
)
add(
    "read",
    "what each MLP writes in the direction of one token's logit",
    'y = pg.cache(x, "transformer.h_*.mlp.output").stack() @ model.lm_head.weight[7]',
    "kept = []\nhooks = [h.mlp.register_forward_hook(lambda m, i, o: kept.append(o)) for h in H]\nmodel(x)\n"
    "for hook in hooks:\n    hook.remove()\ny = torch.stack(kept) @ model.lm_head.weight[7]",
    nnsight="with model.trace(x):\n"
    "    y = (torch.stack([h.mlp.output for h in model.transformer.h]) @ model.lm_head.weight[7]).save()",
    TransformerLens='y = model.run_with_cache(x)[1].stack_activation("mlp_out") @ model.W_U[:, 7]',
    baukit='with TraceDict(model, [f"transformer.h.{n}.mlp" for n in range(2)]) as ret:\n    model(x)\n'
    "y = torch.stack([r.output for r in ret.values()]) @ model.lm_head.weight[7]",
)
add(
    "gradients",
    "saliency: how much each token's embedding matters",
    'y = pg.cache(x, "transformer.wte.output", grads=metric).grads.norms().stack()[0]',
    "kept = []\nwith model.transformer.wte.register_forward_hook(lambda m, i, o: kept.append(o)):\n"
    "    loss = metric(model(x))\ny = torch.autograd.grad(loss, kept[0])[0].norm(dim=-1)",
    nnsight="with model.trace(x):\n    hidden = model.transformer.wte.output\n"
    "    with metric(model.output).backward():\n        y = hidden.grad.norm(dim=-1).save()",
    baukit='with Trace(model, "transformer.wte", retain_grad=True) as ret:\n    metric(model(x)).backward()\n'
    "y = ret.output.grad.norm(dim=-1)",
)
add(
    "gradients",
    "a scaled gradient",
    'y = torch.autograd.grad(metric(pg.run_with({"transformer.h_1.mlp.output": '
    'CustomPatch(custom_op=lambda g: g * 3, on="grad")}, x)), H[0].mlp.c_fc.weight)[0]',
    "kept = []\nwith H[1].mlp.register_forward_hook(lambda m, i, o: o.register_hook(lambda g: g * 3) and None):\n"
    "    loss = metric(model(x))\ny = torch.autograd.grad(loss, H[0].mlp.c_fc.weight)[0]",
    nnsight="with model.trace(x):\n    mlp = model.transformer.h[1].mlp.output\n"
    "    with metric(model.output).backward():\n        mlp.grad = mlp.grad * 3\n"
    "y = model.transformer.h[0].mlp.c_fc.weight.grad",
)
