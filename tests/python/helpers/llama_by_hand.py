"""Llama with a language model head as plain functions, with the lines of transformers' model, in eval mode."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from by_hand import At, Weights, causal_mask, embedding, empty_cache, linear

Angles = tuple[Tensor, Tensor]


def logits(w: Weights, at: At, attention: str, input_ids: Tensor, layers: int = 2, heads: int = 2) -> Tensor:
    ids = at("input_ids", input_ids)
    hidden = at("alias", decoder(w, at, attention, ids, layers, heads)[:, 0:, :])
    return at("output|logits", linear(w, at, "lm_head", hidden))


def decoder(w: Weights, at: At, attention: str, ids: Tensor, layers: int, heads: int) -> Tensor:
    s = "model"
    ids = at(f"{s}.input_ids", ids)
    hidden = embedding(w, at, f"{s}.embed_tokens", ids)
    cache_position = at(f"{s}.arange", torch.arange(ids.shape[1]))
    position_ids = at(f"{s}.unsqueeze", cache_position.unsqueeze(0))
    mask = causal_mask(at, s, cache_position, "to") if attention == "eager" else None
    angles = rotary(w, at, f"{s}.rotary_emb", hidden, position_ids)
    for index in range(layers):
        one = f"{s}.layers_{index}"
        hidden = layer(w, at, attention, one, hidden, cache_position, position_ids, mask, angles, heads)
    return at(f"{s}.output|last_hidden_state", rms_norm(w, at, f"{s}.norm", hidden))


def rotary(w: Weights, at: At, s: str, x: Tensor, position_ids: Tensor) -> Angles:
    at(f"{s}.x", x)  # only its dtype is used
    position_ids = at(f"{s}.position_ids", position_ids)
    with torch.no_grad():
        inverse = at(f"{s}.inv_freq", w(s, "inv_freq"))
        inverse = at(f"{s}.unsqueeze", inverse.unsqueeze(0))
        inverse = at(f"{s}.unsqueeze_1", inverse.unsqueeze(2))
        inverse = at(f"{s}.to", inverse)
        inverse = at(f"{s}.expand", inverse.expand(position_ids.shape[0], -1, 1))
        inverse = at(f"{s}.to_1", inverse)
        places = at(f"{s}.unsqueeze_2", position_ids.unsqueeze(1))
        places = at(f"{s}.to_2", places.float())
        freqs = at(f"{s}.matmul", at(f"{s}.to_3", inverse) @ at(f"{s}.to_4", places))
        freqs = at(f"{s}.transpose", freqs.transpose(1, 2))
        both = at(f"{s}.cat", torch.cat((freqs, freqs), dim=-1))
        cos = at(f"{s}.mul", at(f"{s}.cos", both.cos()) * 1.0)
        sin = at(f"{s}.mul_1", at(f"{s}.sin", both.sin()) * 1.0)
        cos, sin = at(f"{s}.to_5", cos), at(f"{s}.to_6", sin)
    return at(f"{s}.output|sub_0", cos), at(f"{s}.output|sub_1", sin)


def layer(
    w: Weights,
    at: At,
    attention: str,
    s: str,
    hidden: Tensor,
    cache_position: Tensor,
    position_ids: Tensor,
    mask: Tensor | None,
    angles: Angles,
    heads: int,
) -> Tensor:
    hidden = at(f"{s}.hidden_states", hidden)
    if mask is not None:
        mask = at(f"{s}.attention_mask", mask)
    position_ids = at(f"{s}.position_ids", position_ids)
    cache_position = at(f"{s}.cache_position", cache_position)
    angles = embeddings(at, s, angles)
    normed = rms_norm(w, at, f"{s}.input_layernorm", hidden)
    attended = attend(w, at, attention, f"{s}.self_attn", normed, cache_position, position_ids, mask, angles, heads)
    hidden = at(f"{s}.add", hidden + attended)
    changed = mlp(w, at, f"{s}.mlp", rms_norm(w, at, f"{s}.post_attention_layernorm", hidden))
    return at(f"{s}.output", at(f"{s}.add_1", hidden + changed))


def embeddings(at: At, s: str, angles: Angles) -> Angles:
    return at(f"{s}.position_embeddings|sub_0", angles[0]), at(f"{s}.position_embeddings|sub_1", angles[1])


def attend(
    w: Weights,
    at: At,
    attention: str,
    s: str,
    hidden: Tensor,
    cache_position: Tensor,
    position_ids: Tensor,
    mask: Tensor | None,
    angles: Angles,
    heads: int,
) -> Tensor:
    hidden = at(f"{s}.hidden_states", hidden)
    cos, sin = embeddings(at, s, angles)
    if mask is not None:
        mask = at(f"{s}.attention_mask", mask)
    at(f"{s}.cache_position", cache_position)  # for a static cache only
    at(f"{s}.kwargs|position_ids", position_ids)  # for other kinds of attention only
    by_head = (*hidden.shape[:-1], -1, hidden.shape[-1] // heads)
    query = at(f"{s}.view", linear(w, at, f"{s}.q_proj", hidden).view(by_head))
    query = at(f"{s}.transpose", query.transpose(1, 2))
    key = at(f"{s}.view_1", linear(w, at, f"{s}.k_proj", hidden).view(by_head))
    key = at(f"{s}.transpose_1", key.transpose(1, 2))
    value = at(f"{s}.view_2", linear(w, at, f"{s}.v_proj", hidden).view(by_head))
    value = at(f"{s}.transpose_2", value.transpose(1, 2))
    cos, sin = at(f"{s}.unsqueeze", cos.unsqueeze(1)), at(f"{s}.unsqueeze_1", sin.unsqueeze(1))
    query = turn(at, s, query, cos, sin, ("mul", "slice_1", "slice_2", "neg", "cat", "mul_1", "add"))
    key = turn(at, s, key, cos, sin, ("mul_2", "slice_3", "slice_4", "neg_1", "cat_1", "mul_3", "add_1"))
    no_keys, no_values = empty_cache(at, s)
    key = at(f"{s}.cat_2", torch.cat([no_keys, key], dim=-2))
    value = at(f"{s}.cat_3", torch.cat([no_values, value], dim=-2))
    scale = query.shape[-1] ** -0.5
    if attention == "eager":
        mixed = eager(at, s, query, key, value, mask, scale)
    else:
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=True)
        mixed = at(f"{s}.scaled_dot_product_attention", mixed)
        mixed = at(f"{s}.transpose_3", mixed.transpose(1, 2)).contiguous()
    mixed = at(f"{s}.reshape_2" if attention == "eager" else f"{s}.reshape", mixed.reshape(*hidden.shape[:-1], -1))
    return at(f"{s}.output|sub_0", linear(w, at, f"{s}.o_proj", mixed))


def turn(at: At, s: str, x: Tensor, cos: Tensor, sin: Tensor, names: tuple[str, ...]) -> Tensor:
    """The rotary embedding of queries or keys."""
    with_cos, first, second, minus, both, with_sin, result = (f"{s}.{name}" for name in names)
    half = x.shape[-1] // 2
    straight = at(with_cos, x * cos)
    x1, x2 = at(first, x[..., :half]), at(second, x[..., half:])
    rotated = at(both, torch.cat((at(minus, -x2), x1), dim=-1))
    return at(result, straight + at(with_sin, rotated * sin))


def eager(at: At, s: str, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    key = repeat(at, s, key, query.shape[1], ("unsqueeze_2", "expand", "reshape"))
    value = repeat(at, s, value, query.shape[1], ("unsqueeze_3", "expand_1", "reshape_1"))
    weights = at(f"{s}.matmul", torch.matmul(query, at(f"{s}.transpose_3", key.transpose(2, 3))))
    weights = at(f"{s}.mul_4", weights * scale)
    weights = at(f"{s}.add_2", weights + at(f"{s}.alias", mask))
    weights = at(f"{s}.softmax", F.softmax(weights, dim=-1, dtype=torch.float32))
    weights = at(f"{s}.dropout", at(f"{s}.to_2", weights))
    at(f"{s}.output|sub_1", weights)  # returned, but not used by any caller
    mixed = at(f"{s}.matmul_1", torch.matmul(weights, value))
    mixed = at(f"{s}.transpose_4", mixed.transpose(1, 2))
    return at(f"{s}.contiguous", mixed.contiguous())


def repeat(at: At, s: str, x: Tensor, heads: int, names: tuple[str, ...]) -> Tensor:
    """Repeats keys or values for the heads that share them."""
    more, wide, flat = (f"{s}.{name}" for name in names)
    batch, own, length, width = x.shape
    x = at(wide, at(more, x.unsqueeze(2)).expand(batch, own, heads // own, length, width))
    return at(flat, x.reshape(batch, heads, length, width))


def mlp(w: Weights, at: At, s: str, x: Tensor) -> Tensor:
    x = at(f"{s}.x", x)
    gate = at(f"{s}.act_fn.input", linear(w, at, f"{s}.gate_proj", x))
    gate = at(f"{s}.act_fn.output", at(f"{s}.act_fn.silu", F.silu(gate)))
    inner = at(f"{s}.mul", gate * linear(w, at, f"{s}.up_proj", x))
    return at(f"{s}.output", linear(w, at, f"{s}.down_proj", inner))


def rms_norm(w: Weights, at: At, s: str, x: Tensor) -> Tensor:
    x = at(f"{s}.to", at(f"{s}.hidden_states", x))
    mean = at(f"{s}.mean", at(f"{s}.pow_1", x.pow(2)).mean(-1, keepdim=True))
    scale = at(f"{s}.rsqrt", torch.rsqrt(at(f"{s}.add", mean + 1e-6)))
    x = at(f"{s}.to_1", at(f"{s}.mul", x * scale))
    return at(f"{s}.output", at(f"{s}.mul_1", at(f"{s}.weight", w(s, "weight")) * x))
