"""The C++ example's transformer as a Python module that can be scripted: same attributes, same order of calls."""

import math
from typing import Any

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        each = width // self.heads
        parts = self.qkv(x).view(batch, tokens, 3, self.heads, each).permute(2, 0, 3, 1, 4).unbind(0)
        scores = torch.matmul(parts[0], parts[1].transpose(-2, -1)) / math.sqrt(each)
        scores = scores.masked_fill(mask, -1e9).softmax(-1)
        z = torch.matmul(scores, parts[2])
        return self.proj(z.transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


class Gpt(nn.Module):
    def __init__(
        self, vocabulary: int = 50, context: int = 16, width: int = 32, heads: int = 4, layers: int = 2
    ) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocabulary, width)
        self.wpe = nn.Embedding(context, width)
        self.layers = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.ln_f = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.register_buffer("mask", torch.ones(context, context, dtype=torch.bool).triu(1))
        self.register_buffer("positions", torch.arange(context))

    def forward(self, ids: Tensor) -> Tensor:
        tokens = ids.size(1)
        hidden = self.mask[:tokens, :tokens]
        x = self.wte(ids)
        x = x + self.wpe(self.positions[:tokens])
        for layer in self.layers:
            x = layer(x, hidden)
        return self.head(self.ln_f(x))


def state(model: nn.Module, ids: Tensor) -> Any:
    """What the C++ program reads."""
    weights: dict[str, Tensor] = {name: weight.detach() for name, weight in model.named_parameters()}
    return weights, ids
