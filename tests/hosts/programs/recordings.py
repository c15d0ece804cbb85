"""Exceptions out of a signal handler while a graph is recorded: recordings.py INTERRUPTS.

Each time, another model is recorded, and a timer interrupts that by an exception. Each timer rings once, so an exception that is lost
leaves its round without one. Prints how many rounds were interrupted, how many exceptions were lost or graphs wrong, and how many
rounds there were.
"""

import random
import signal
import sys
from typing import Any

import torch
from torch import nn

from libgraphpatch import PatchableGraph

WANTED = int(sys.argv[1])


class Deadline(Exception):
    pass


chance = random.Random(3)
rang = 0


def ring(*_: Any) -> None:
    global rang
    rang += 1
    raise chance.choice([Deadline, KeyboardInterrupt])


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), *(nn.Sequential(nn.ReLU(), nn.Linear(4, 4)) for _ in range(6)))


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    x = torch.ones(2, 4)
    expected = repr(PatchableGraph(model(), x).graph)
    signal.signal(signal.SIGALRM, ring)
    interrupted = wrong = number = 0
    while interrupted < WANTED:
        number += 1
        one, before, came = model(), rang, False
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 1.5e-2))
            PatchableGraph(one, x)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except (Deadline, KeyboardInterrupt):
            came = True
        interrupted += came
        wrong += came != rang - before
        if number % 20 == 0:
            wrong += repr(PatchableGraph(one, x).graph) != expected
    print(interrupted, wrong, number)


main()
