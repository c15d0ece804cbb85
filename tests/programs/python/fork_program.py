"""Forks 100 times while other threads patch, record and read graphs. Each child runs the model under its own patch.

Usage: fork_program.py [bare]. Prints one line of JSON: how each child ended ("right", "wrong", "hung").
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from functools import partial

import torch

from threads_and_children import Net, ends, fork, join, once, start

CHILDREN = 100
BARE = sys.argv[1:] == ["bare"]

torch.set_num_threads(1)


def main() -> None:
    x = torch.ones(2, 4)
    stop = threading.Event()
    if BARE:
        net = Net()
        busy = [lambda: net(x)] * 3

        def child() -> bool:
            return net(x).shape == (2, 4)
    else:
        from libgraphpatch import AddPatch, PatchableGraph, ProbePatch, ZeroPatch

        pg = PatchableGraph(Net(), x)

        def patch() -> None:
            with pg.patch({"first.output": [AddPatch(value=1.0), ProbePatch()]}):
                pg(x)

        def record() -> None:
            str(PatchableGraph(Net(), x).graph)

        def read() -> None:
            pg(x)
            str(pg.graph)

        busy = [patch, record, read]

        def child() -> bool:
            with pg.patch({"output": ZeroPatch()}):
                return not pg(x).any()

    def again_and_again(work: Callable[[], object]) -> None:
        while not stop.is_set():
            work()

    once([*busy, child])
    threads = start(partial(again_and_again, work) for work in busy)
    children = [fork(child) for _ in range(CHILDREN)]
    stop.set()
    join(threads)
    print(json.dumps(ends(children)))


if __name__ == "__main__":
    main()
