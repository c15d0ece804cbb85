"""What patches cost inside of models that torch.compile has compiled: ratios to the compiled model without any, from
pairs of calls that follow each other.

Prints the median of each ratio with its quartiles; `--rounds` says how many pairs there are. The targets are those of a
quiet machine.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from libgraphpatch import PatchableGraph, ZeroPatch, _taps


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.qkv(x).chunk(3, -1)
        query, key, value = (
            part.view(batch, length, self.heads, width // self.heads).transpose(1, 2) for part in parts
        )
        scores = query @ key.transpose(-1, -2) / (width // self.heads) ** 0.5
        mask = torch.tril(torch.ones(length, length, dtype=torch.bool))
        weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
        mixed: Tensor = self.proj((weights @ value).transpose(1, 2).reshape(batch, length, width))
        return mixed


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_1, self.attn, self.norm_2 = nn.LayerNorm(width), Attention(width, heads), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm_1(x))
        inner: Tensor = nn.functional.gelu(self.up(self.norm_2(x)))
        return x + self.down(inner)


class Transformer(nn.Module):
    """A small GPT."""

    def __init__(self, layers: int, width: int, heads: int, words: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(64, width)
        self.h = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        for block in self.h:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


def paired(rounds: int, call: Callable[[], Any], bare: Callable[[], Any]) -> str:
    """How many times as long as ``bare`` a ``call`` takes: the median of the rounds' ratios, and the quartiles."""
    ratios = []
    for number in range(rounds):
        first, second = (call, bare) if number % 2 else (bare, call)
        times = []
        for function in (first, second):
            began = time.thread_time()
            function()
            times.append(time.thread_time() - began)
        ratios.append(times[0] / times[1] if number % 2 else times[1] / times[0])
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=400)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    _taps.PATIENCE = 0.0
    for name, model, x in (
        ("GPT, 2 x 64", Transformer(2, 64, 4, 100).eval(), torch.randint(0, 100, (2, 16))),
        ("GPT, 6 x 256", Transformer(6, 256, 8, 1000).eval(), torch.randint(0, 1000, (4, 64))),
    ):
        measure(name, model, x, rounds)


def measure(name: str, model: nn.Module, x: Tensor, rounds: int) -> None:
    with torch.no_grad():
        bare = torch.compile(copy.deepcopy(model))
        bare(x)
        print(f"{name}: compiled is {paired(rounds, lambda: bare(x), lambda: model(x))} of eager")
        operations = [
            path
            for operation in (
                "linear",
                "matmul",
                "gelu",
                "softmax",
                "layer_norm",
                "embedding",
                "div",
                "masked_fill",
                "add",
            )
            for path in map(str, PatchableGraph(copy.deepcopy(model), x).graph.find(op=operation))
        ]
        for count in (1, min(100, len(operations)), len(operations)):
            torch._dynamo.reset()
            bare(x)
            compiled = torch.compile(copy.deepcopy(model))
            pg = PatchableGraph(compiled, x)
            patches = {path: ZeroPatch(slice=(..., slice(0, 0))) for path in operations[-count:]}
            with pg.patch(patches):
                pg(x)
                assert torch.equal(pg(x), bare(x)), "a patch of no element changes no bit"
                ratio = paired(rounds, lambda: compiled(x), lambda: bare(x))
            print(f"{name}: patched at {count} of its values it takes {ratio} of the compiled model")


if __name__ == "__main__":
    main()
