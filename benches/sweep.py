"""A causal trace, layers × positions, of GPT-2 (12 layers, 124 million random parameters) on 24 tokens: `pg.sweep`
beside the loop that runs the model once for each cell with a forward hook.

Each round times the sweep, and of the loop one cell of each layer. The loop's cells cost the same, so this is scaled.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from libgraphpatch import PatchableGraph

LAYERS, LENGTH = 12, 24


def metric(output: Any) -> torch.Tensor:
    return output.logits[:, -1, 7].sum()


def hidden(output: Any) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output[0]


class Loop:
    """The trace by forward hooks."""

    def __init__(self, model: GPT2LMHeadModel, clean: torch.Tensor, corrupted: torch.Tensor) -> None:
        self.model, self.corrupted, self.kept = model, corrupted, []
        hooks = [
            layer.register_forward_hook(lambda _m, _i, output: self.kept.append(hidden(output).clone()))
            for layer in model.transformer.h
        ]
        with torch.no_grad():
            model(clean, use_cache=False)
        for hook in hooks:
            hook.remove()

    def cell(self, layer: int, place: int) -> torch.Tensor:
        def restore(_m: Any, _i: Any, output: Any) -> Any:
            value = hidden(output).clone()
            value[:, place] = self.kept[layer][:, place]
            return value if isinstance(output, torch.Tensor) else (value, *output[1:])

        with self.model.transformer.h[layer].register_forward_hook(restore), torch.no_grad():
            return metric(self.model(self.corrupted, use_cache=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(attn_implementation="eager")).eval()
    clean = torch.randint(0, 50257, (1, LENGTH))
    corrupted = clean.clone()
    corrupted[:, 3:6] = torch.randint(0, 50257, (1, 3))
    pg = PatchableGraph(model, clean, use_cache=False)
    path = "transformer.h_*.output"
    if not pg.graph.find(path, shape="..."):
        path += "|sub_0"
    loop = Loop(model, clean, corrupted)
    times: dict[str, list[float]] = {"loop": [], "sweep": [], "loop / sweep": []}
    for number in range(asked.rounds):
        places = [(7 * number + 5 * layer) % LENGTH for layer in range(LAYERS)]
        start = time.perf_counter()
        cells = [loop.cell(layer, place) for layer, place in enumerate(places)]
        between = time.perf_counter()
        sweep = pg.sweep(
            path, corrupted, positions=range(LENGTH), source=clean, metric=metric, batch=32, use_cache=False
        )
        end = time.perf_counter()
        worst = max(abs(cell - sweep.values[layer, places[layer]]).item() for layer, cell in enumerate(cells))
        assert worst < 1e-5, worst
        times["loop"].append((between - start) * LENGTH)
        times["sweep"].append(end - between)
        times["loop / sweep"].append(times["loop"][-1] / times["sweep"][-1])
    print(f"causal trace, {LAYERS} layers x {LENGTH} positions, {asked.threads} threads: {sweep!r}")
    for what, found in times.items():
        low, middle, high = statistics.quantiles(found, n=4) if len(found) > 1 else found * 3
        print(f"  {what:13} {middle:7.2f}  (quartiles {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
