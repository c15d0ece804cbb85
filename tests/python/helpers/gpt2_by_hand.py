"""GPT-2 with a language model head as plain functions, with the lines of transformers' model, in eval mode."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from by_hand import At, Weights, causal_mask, dropout, embedding, empty_cache, linear


def logits(w: Weights, at: At, attention: str, input_ids: Tensor, layers: int = 2, heads: int = 2) -> Tensor:
    ids = at("input_ids", input_ids)
    hidden = at("alias", transformer(w, at, attention, ids, layers, heads)[:, 0:, :])
    return at("output|logits", linear(w, at, "lm_head", hidden))


def transformer(w: Weights, at: At, attention: str, ids: Tensor, layers: int, heads: int) -> Tensor:
    s = "transformer"
    ids = at(f"{s}.input_ids", ids)
    ids = at(f"{s}.view", ids.view(-1, ids.shape[-1]))
    tokens = embedding(w, at, f"{s}.wte", ids)
    cache_position = at(f"{s}.arange", torch.arange(ids.shape[1]))
    position_ids = at(f"{s}.unsqueeze", cache_position.unsqueeze(0))
    positions = at(f"{s}.to", embedding(w, at, f"{s}.wpe", position_ids))
    hidden = at(f"{s}.add", tokens + positions)
    mask = causal_mask(at, s, cache_position, "to_1") if attention == "eager" else None
    hidden = dropout(at, f"{s}.drop", hidden)
    for index in range(layers):
        hidden = block(w, at, attention, f"{s}.h_{index}", hidden, cache_position, mask, heads)
    hidden = layer_norm(w, at, f"{s}.ln_f", hidden)
    hidden = at(f"{s}.view_1", hidden.view(-1, *hidden.shape[1:]))
    return at(f"{s}.output|last_hidden_state", hidden)


def block(
    w: Weights, at: At, attention: str, s: str, hidden: Tensor, cache_position: Tensor, mask: Tensor | None, heads: int
) -> Tensor:
    hidden = at(f"{s}.hidden_states", hidden)
    cache_position = at(f"{s}.cache_position", cache_position)
    if mask is not None:
        mask = at(f"{s}.attention_mask", mask)
    normed = layer_norm(w, at, f"{s}.ln_1", hidden)
    attended = attend(w, at, attention, f"{s}.attn", normed, cache_position, mask, heads)
    hidden = at(f"{s}.add", attended + hidden)
    changed = mlp(w, at, f"{s}.mlp", layer_norm(w, at, f"{s}.ln_2", hidden))
    hidden = at(f"{s}.add_1", hidden + changed)
    return at(f"{s}.output|sub_0", hidden)


def attend(
    w: Weights, at: At, attention: str, s: str, hidden: Tensor, cache_position: Tensor, mask: Tensor | None, heads: int
) -> Tensor:
    hidden = at(f"{s}.hidden_states", hidden)
    at(f"{s}.cache_position", cache_position)  # for a static cache only
    if mask is not None:
        mask = at(f"{s}.attention_mask", mask)
    query, key, value = conv1d(w, at, f"{s}.c_attn", hidden).split(hidden.shape[-1], dim=2)
    query = at(f"{s}.split|sub_0", query)
    key = at(f"{s}.split|sub_1", key)
    value = at(f"{s}.split|sub_2", value)
    by_head = (*hidden.shape[:-1], heads, -1)
    key = at(f"{s}.view", key.view(by_head))
    key = at(f"{s}.transpose", key.transpose(1, 2))
    value = at(f"{s}.view_1", value.view(by_head))
    value = at(f"{s}.transpose_1", value.transpose(1, 2))
    query = at(f"{s}.view_2", query.view(by_head))
    query = at(f"{s}.transpose_2", query.transpose(1, 2))
    no_keys, no_values = empty_cache(at, s)
    key = at(f"{s}.cat", torch.cat([no_keys, key], dim=-2))
    value = at(f"{s}.cat_1", torch.cat([no_values, value], dim=-2))
    if attention == "eager":
        mixed = eager(w, at, s, query, key, value, mask)
        mixed = at(f"{s}.transpose_4", mixed.transpose(1, 2))
    else:
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        mixed = at(f"{s}.scaled_dot_product_attention", mixed)
        mixed = at(f"{s}.transpose_3", mixed.transpose(1, 2))
    mixed = at(f"{s}.reshape", mixed.contiguous().reshape(*mixed.shape[:-2], -1))
    mixed = conv1d(w, at, f"{s}.c_proj", mixed)
    return at(f"{s}.output|sub_0", dropout(at, f"{s}.resid_dropout", mixed))


def eager(w: Weights, at: At, s: str, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    turned = at(f"{s}.transpose_3", key.transpose(-1, -2))
    weights = at(f"{s}.matmul", torch.matmul(query, turned))
    weights = at(f"{s}.div", weights / at(f"{s}.full", torch.full([], value.size(-1) ** 0.5)))
    causal = at(f"{s}.bias", w(s, "bias"))
    causal = at(f"{s}.slice_1", causal[:, :, : query.size(-2)])
    causal = at(f"{s}.slice_2", causal[:, :, :, : key.size(-2)])
    least = at(f"{s}.full_1", torch.full([], torch.finfo(torch.float32).min))
    weights = at(f"{s}.to_2", weights)
    weights = at(f"{s}.where", torch.where(causal, weights, least))
    weights = at(f"{s}.add", weights + at(f"{s}.alias", mask))
    weights = at(f"{s}.softmax", F.softmax(weights, dim=-1))
    weights = dropout(at, f"{s}.attn_dropout", at(f"{s}.to_3", weights))
    at(f"{s}.output|sub_1", weights)  # returned, but not used by any caller
    return at(f"{s}.matmul_1", torch.matmul(weights, value))


def mlp(w: Weights, at: At, s: str, hidden: Tensor) -> Tensor:
    hidden = conv1d(w, at, f"{s}.c_fc", at(f"{s}.hidden_states", hidden))
    hidden = conv1d(w, at, f"{s}.c_proj", gelu(at, f"{s}.act", hidden))
    return at(f"{s}.output", dropout(at, f"{s}.dropout", hidden))


def gelu(at: At, s: str, x: Tensor) -> Tensor:
    x = at(f"{s}.input", x)
    half = at(f"{s}.mul", 0.5 * x)
    inner = at(f"{s}.mul_1", 0.044715 * at(f"{s}.pow_1", torch.pow(x, 3.0)))
    inner = at(f"{s}.mul_2", math.sqrt(2.0 / math.pi) * at(f"{s}.add", x + inner))
    factor = at(f"{s}.add_1", 1.0 + at(f"{s}.tanh", torch.tanh(inner)))
    return at(f"{s}.output", at(f"{s}.mul_3", half * factor))


def layer_norm(w: Weights, at: At, s: str, x: Tensor) -> Tensor:
    x = at(f"{s}.input", x)
    weight, bias = at(f"{s}.weight", w(s, "weight")), at(f"{s}.bias", w(s, "bias"))
    return at(f"{s}.output", at(f"{s}.layer_norm", F.layer_norm(x, weight.shape, weight, bias, 1e-5)))


def conv1d(w: Weights, at: At, s: str, x: Tensor) -> Tensor:
    x = at(f"{s}.x", x)
    flat = at(f"{s}.view", x.view(-1, x.size(-1)))
    bias, weight = at(f"{s}.bias", w(s, "bias")), at(f"{s}.weight", w(s, "weight"))
    y = at(f"{s}.addmm", torch.addmm(bias, flat, weight))
    return at(f"{s}.output", at(f"{s}.view_1", y.view(*x.shape[:-1], -1)))
