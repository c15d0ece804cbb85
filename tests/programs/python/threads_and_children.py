"""What the programs share that fork while several threads run models."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable

import torch
from torch import nn

# Seconds that children may take. One needs milliseconds, but the machine may be busy.
PATIENCE = 120.0


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


def once(works: Iterable[Callable[[], object]]) -> None:
    """Does each work once. At the first use of an operation libtorch fills caches under its own locks, which a child could
    inherit locked."""
    with torch.inference_mode():
        for work in works:
            work()


def start(works: Iterable[Callable[[], object]]) -> list[threading.Thread]:
    """Starts a thread for each work. It works in inference mode: outside of that, libtorch itself locks a mutex of each
    parameter, which a child may inherit locked."""

    def in_inference_mode(work: Callable[[], object]) -> None:
        with torch.inference_mode():
            work()

    threads = [threading.Thread(target=in_inference_mode, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    return threads


def join(threads: Iterable[threading.Thread]) -> None:
    for thread in threads:
        thread.join()


def fork(child: Callable[[], bool]) -> int:
    """Forks. The child ends after its work, which tells whether all was right. Returns its process id."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with torch.inference_mode():
                status = 0 if child() else 2
        finally:
            os._exit(status)
    return pid


def ends(children: Iterable[int]) -> Counter[str]:
    """Waits for children: how many were "right" and "wrong", and how many "hung" and had to be killed."""
    ends: Counter[str] = Counter()
    running, deadline = set(children), time.monotonic() + PATIENCE
    while running:
        is_over = time.monotonic() > deadline
        for pid in list(running):
            done, status = os.waitpid(pid, os.WNOHANG)
            if not done and is_over:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            if done or is_over:
                running.discard(pid)
                ends["hung" if not done else "right" if status == 0 else "wrong"] += 1
        time.sleep(0.002)
    return ends
