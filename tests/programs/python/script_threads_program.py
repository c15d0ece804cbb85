"""Four threads call a scripted module that is warm and optimized, while the main thread opens and closes blocks.

Usage: script_threads_program.py [REPETITIONS]. Each repetition has a module of its own. Prints one line of JSON: how many
values of each kind there were.
"""

from __future__ import annotations

import collections
import json
import sys
import threading
from collections.abc import Callable

import torch
from torch import Tensor, nn

from libgraphpatch import PatchableGraph, ZeroPatch

BLOCKS = 100

torch.set_num_threads(1)


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.abs(self.second(torch.relu(self.first(x)) + 1)) + x


class Outer(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner(x)
        return result


def kind(value: Tensor, bare: Tensor, patched: Tensor) -> str:
    if torch.equal(value, bare):
        return "bare"
    return "patched" if torch.equal(value, patched) else "neither"


def repeat(counts: collections.Counter[str]) -> None:
    x = torch.rand(2, 4)
    eager = Inner()
    inner = torch.jit.script(eager)
    outer = Outer(inner)
    bare = eager(x)
    patched = x.clone()  # the patched result is abs(0) + x
    for _ in range(5):  # until the executor has optimized it
        inner(x)
    stop, started = threading.Event(), threading.Barrier(5)

    def call(name: str, module: Callable[[Tensor], Tensor]) -> None:
        with torch.no_grad():
            started.wait()
            while not stop.is_set():
                counts[f"{name}: {kind(module(x), bare, patched)}"] += 1

    # Each thread counts under a key of its own, so that no count is lost.
    work = [("direct 0", inner), ("direct 1", inner), ("whole 0", outer), ("whole 1", outer)]
    threads = [threading.Thread(target=call, args=arguments) for arguments in work]
    for thread in threads:
        thread.start()
    started.wait()
    try:
        # The session is opened while the threads run.
        pg = PatchableGraph(outer, x)
        for _ in range(BLOCKS):
            with pg.patch({"inner.second.output": ZeroPatch()}):
                counts[f"inside: {kind(pg(x), bare, patched)}"] += 1
            counts[f"outside: {kind(pg(x), bare, patched)}"] += 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def main() -> None:
    counts: collections.Counter[str] = collections.Counter()
    with torch.no_grad():
        for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1):
            repeat(counts)
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
