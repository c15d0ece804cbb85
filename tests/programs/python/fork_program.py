"""Forks 100 times while other threads patch, record and read graphs. Each child runs the model under its own patch.

Usage: fork_program.py [bare]. Prints one line of JSON: how each child ended ("right", "wrong", "hung").
"""

from __future__ import annotations

import collections
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import torch
from torch import nn

CHILDREN = 100
# Seconds for all children. A child needs milliseconds, but the machine may be busy.
PATIENCE = 120.0
BARE = sys.argv[1:] == ["bare"]

torch.set_num_threads(1)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


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

    # Outside of inference mode libtorch itself locks a mutex of each parameter, which a child may inherit locked.
    def again_and_again(work: Callable[[], object]) -> None:
        with torch.inference_mode():
            while not stop.is_set():
                work()

    # At the first use of an operation libtorch fills caches under its own locks, which a child could inherit locked.
    with torch.inference_mode():
        for work in (*busy, child):
            work()
    threads = [threading.Thread(target=again_and_again, args=(work,)) for work in busy]
    for thread in threads:
        thread.start()
    ends: collections.Counter[str] = collections.Counter()
    running = set()
    for _ in range(CHILDREN):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                with torch.inference_mode():
                    status = 0 if child() else 2
            finally:
                os._exit(status)
        running.add(pid)
        _collect(running, ends)
    stop.set()
    for thread in threads:
        thread.join()
    deadline = time.monotonic() + PATIENCE
    while running and time.monotonic() < deadline:
        _collect(running, ends)
        time.sleep(0.01)
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        ends["hung"] += 1
    print(json.dumps(ends))


def _collect(running: set[int], ends: collections.Counter[str]) -> None:
    for pid in list(running):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            running.discard(pid)
            ends["right" if status == 0 else "wrong"] += 1


if __name__ == "__main__":
    main()
