"""Exceptions out of a signal handler, at random moments: interrupts.py INTERRUPTS [alone].

Each time, a model is called in a block of patches, and a timer interrupts the block by an exception. Afterwards the
model must give the results without patches, and in a new block those with them. With `alone`, nothing of libgraphpatch
is imported, and all calls must give the result of the first. Ends after so many interrupts; calls that end before the
timer count as none. Prints how many calls were interrupted, how many of the later calls were wrong, and how many were made.
"""

import random
import signal
import sys
from typing import Any

import torch
from torch import nn


class Deadline(Exception):
    pass


armed = False


def ring(*_: Any) -> None:
    global armed
    if armed:
        armed = False
        raise Deadline


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def main() -> None:
    global armed
    wanted, alone = int(sys.argv[1]), sys.argv[2:] == ["alone"]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net, x = Net(), torch.ones(2, 4)
    if not alone:
        from libgraphpatch import AddPatch, PatchableGraph, ProbePatch, ZeroPatch

        pg = PatchableGraph(net, x)
        patches = {"first.output": [AddPatch(value=1.0), ProbePatch()], "second.sub_1.output": ZeroPatch(slice=0)}

    def patched() -> torch.Tensor:
        if alone:
            return net(x)
        with pg.patch(patches):
            return pg(x)

    chance = random.Random(5)
    signal.signal(signal.SIGALRM, ring)
    with torch.no_grad():
        bare, changed = net(x), patched()
        interrupted = wrong = number = 0
        while interrupted < wanted:
            number += 1
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 6e-4 if not alone else 1.5e-4))
                patched()
            except Deadline:
                interrupted += 1
            armed = False
            wrong += not torch.equal(net(x), bare)
            if number % 10 == 0:
                wrong += not torch.equal(patched(), changed)
        wrong += not torch.equal(net(x), bare) or not torch.equal(patched(), changed)
    print(interrupted, wrong, number)


main()
