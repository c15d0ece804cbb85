"""The Transformer of models.py once more, written by hand as plain PyTorch with a tap at every node.

The recorded graph and every patch are compared with this. A tap is called with the path of a node, in the order that
docs/explanation/names.md gives the children of a scope, so that the list of taps is the expected graph. It returns the
value that all later operations use, so that a patch is one changed tap.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import BATCH, HEAD_WIDTH, HEADS, TOKENS, WIDTH, Attention, Block, Mlp, Transformer

Change = Callable[[Tensor], None]


class Taps:
    """Applies changes by path and remembers every value. A change acts in place on a copy."""

    def __init__(self, changes: dict[str, list[Change]]) -> None:
        self.changes = changes
        self.seen: dict[str, Tensor] = {}

    def __call__(self, path: str, value: Tensor) -> Tensor:
        for change in self.changes.get(path, []):
            value = value.detach().clone()
            change(value)
        assert path not in self.seen, f"two taps are called {path}"
        self.seen[path] = value
        return value


def linear(tap: Taps, at: str, module: nn.Linear, x: Tensor) -> Tensor:
    x = tap(f"{at}.input", x)
    weight = tap(f"{at}.weight", module.weight)
    bias = None if module.bias is None else tap(f"{at}.bias", module.bias)
    return tap(f"{at}.output", tap(f"{at}.linear", F.linear(x, weight, bias)))


def layer_norm(tap: Taps, at: str, module: nn.LayerNorm, x: Tensor) -> Tensor:
    x = tap(f"{at}.input", x)
    weight, bias = tap(f"{at}.weight", module.weight), tap(f"{at}.bias", module.bias)
    y = tap(f"{at}.layer_norm", F.layer_norm(x, module.normalized_shape, weight, bias, module.eps))
    return tap(f"{at}.output", y)


def attention(tap: Taps, at: str, module: Attention, x: Tensor) -> Tensor:
    x = tap(f"{at}.x", x)
    chunks = linear(tap, f"{at}.qkv", module.qkv, x).chunk(3, dim=-1)
    q, k, v = [tap(f"{at}.chunk|sub_{i}", chunk) for i, chunk in enumerate(chunks)]
    shape = (BATCH, TOKENS, HEADS, HEAD_WIDTH)
    q = tap(f"{at}.transpose", tap(f"{at}.view", q.view(shape)).transpose(1, 2))
    # A patched value may lie in memory otherwise than the original (a copy): ask for the same numbers, not for a view.
    k = tap(f"{at}.transpose_1", tap(f"{at}.view_1", k.reshape(shape)).transpose(1, 2))
    v = tap(f"{at}.transpose_2", tap(f"{at}.view_2", v.reshape(shape)).transpose(1, 2))
    scores = tap(f"{at}.matmul", torch.matmul(q, tap(f"{at}.transpose_3", k.transpose(-2, -1))))
    scores = tap(f"{at}.div", scores / math.sqrt(HEAD_WIDTH))
    mask = tap(f"{at}.expand", tap(f"{at}.mask", module.mask).expand(BATCH, HEADS, TOKENS, TOKENS))
    scores = tap(f"{at}.masked_fill", scores.masked_fill(mask, -10000.0))
    weights = tap(f"{at}.dropout.input", tap(f"{at}.softmax", torch.softmax(scores, dim=-1)))
    weights = tap(f"{at}.dropout.output", tap(f"{at}.dropout.dropout", weights))
    y = tap(f"{at}.transpose_4", tap(f"{at}.matmul_1", torch.matmul(weights, v)).transpose(1, 2))
    y = tap(f"{at}.reshape", y.reshape(BATCH, TOKENS, WIDTH))
    return tap(f"{at}.output", linear(tap, f"{at}.proj", module.proj, y))


def mlp(tap: Taps, at: str, module: Mlp, hidden: Tensor) -> Tensor:
    hidden = tap(f"{at}.hidden", hidden)
    up = tap(f"{at}.gelu", F.gelu(linear(tap, f"{at}.up", module.up, hidden)))
    return tap(f"{at}.output", linear(tap, f"{at}.down", module.down, up))


def block(tap: Taps, at: str, module: Block, x: Tensor) -> Tensor:
    x = tap(f"{at}.x", x)
    x = tap(f"{at}.add", x + attention(tap, f"{at}.attn", module.attn, layer_norm(tap, f"{at}.ln1", module.ln1, x)))
    x = tap(f"{at}.add_1", x + mlp(tap, f"{at}.mlp", module.mlp, layer_norm(tap, f"{at}.ln2", module.ln2, x)))
    return tap(f"{at}.output", x)


def transformer(tap: Taps, module: Transformer, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    ids = tap("ids", ids)
    inner = tap("embed.input", ids)
    x = tap("embed.embedding", F.embedding(inner, tap("embed.weight", module.embed.weight)))
    x = tap("embed.output", x)
    x = tap("add", x + tap("pos", module.pos))
    for i, layer in enumerate(module.layers):
        x = block(tap, f"layers_{i}", layer, x)
    logits = linear(tap, "head", module.head, layer_norm(tap, "norm", module.norm, x))
    values, indices = logits.topk(3)
    values, indices = tap("topk|sub_0", values), tap("topk|sub_1", indices)
    return tap("output|sub_0", logits), tap("output|sub_1", values), tap("output|sub_2", indices)


def values(dtype: torch.dtype) -> torch.Tensor:
    return (
        (torch.arange(20).reshape(4, 5) % 2 == 0) if dtype is torch.bool else torch.arange(20).reshape(4, 5).to(dtype)
    )


def steps(x: torch.Tensor, changes: dict[str, Change]) -> tuple[torch.Tensor, torch.Tensor]:
    """models.Steps by hand."""

    def tap(name: str, value: torch.Tensor) -> torch.Tensor:
        if name in changes:
            value = value.clone()
            changes[name](value)
        return value

    fresh = tap("clone", x.clone())
    turned = tap("contiguous", tap("transpose", fresh.transpose(0, 1)).contiguous())
    return tap("output|sub_0", fresh), tap("output|sub_1", turned)
