"""Exceptions out of a signal handler while greenlets switch: switches.py INTERRUPTS [alone].

Each time, three greenlets call a model of their own, in a block of patches, and leave it in its middle for the next one. A timer
interrupts one of them, or the switch, by an exception (Ctrl-C's, or one of the program's). Then the others go on to their end, or are
ended where they are. Afterwards each model gives the results without patches, and in a new block those with them; so do the calls of
greenlets that went on. With `alone`, nothing of libgraphpatch is imported, and all calls give the result of the first. Ends after so
many interrupts; rounds that end before the timer count as none. Prints how many rounds were interrupted, how many results were wrong,
and how many rounds there were.
"""

import random
import signal
import sys
from typing import Any

import greenlet
import torch
from torch import nn

WANTED, ALONE = int(sys.argv[1]), sys.argv[2:] == ["alone"]
if not ALONE:
    from libgraphpatch import AddPatch, PatchableGraph, ProbePatch, ZeroPatch


class Deadline(Exception):
    pass


chance = random.Random(11)
armed = False


def ring(*_: Any) -> None:
    global armed
    if armed:
        armed = False
        raise chance.choice([Deadline, KeyboardInterrupt])


class Turn(nn.Module):
    """Leaves the call for the greenlet that has started this one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outer = greenlet.getcurrent().parent
        if outer is not None:
            outer.switch()
        return x


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Sequential(Turn(), nn.ReLU(), nn.Linear(8, 4), Turn())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


class Model:
    """A model, and its results without patches and with its own ones."""

    def __init__(self) -> None:
        self.net, self.x = Net(), torch.ones(2, 4)
        if not ALONE:
            self.pg = PatchableGraph(self.net, self.x)
            first = [AddPatch(value=1.0), ProbePatch()]
            self.patches = {"first.output": first, "second.sub_2.output": ZeroPatch(slice=0)}
        self.bare, self.changed = self.net(self.x).clone(), self.patched()

    def patched(self) -> torch.Tensor:
        if ALONE:
            return self.net(self.x)
        with self.pg.patch(self.patches):
            return self.pg(self.x)


def take_turns(models: list[Model], results: dict[int, torch.Tensor]) -> list[greenlet.greenlet]:
    """Greenlets that call the models."""

    def call(i: int) -> None:
        results[i] = models[i].patched()

    return [greenlet.greenlet(lambda i=i: call(i)) for i in range(len(models))]


def go_on(greenlets: list[greenlet.greenlet]) -> None:
    while any(not one.dead for one in greenlets):
        for one in greenlets:
            if not one.dead:
                one.switch()


def main() -> None:
    global armed
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with torch.no_grad():
        models = [Model() for _ in range(3)]
        signal.signal(signal.SIGALRM, ring)
        interrupted = wrong = number = 0
        while interrupted < WANTED:
            number += 1
            results: dict[int, torch.Tensor] = {}
            greenlets = take_turns(models, results)
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 1e-2 if not ALONE else 3e-3))
                go_on(greenlets)
            except (Deadline, KeyboardInterrupt):
                interrupted += 1
            armed = False
            if chance.random() < 0.5:
                for one in greenlets:
                    one.throw()
            go_on(greenlets)
            wrong += sum(not torch.equal(result, models[i].changed) for i, result in results.items())
            wrong += sum(not torch.equal(model.net(model.x), model.bare) for model in models)
            if number % 10 == 0:
                wrong += sum(not torch.equal(model.patched(), model.changed) for model in models)
        wrong += sum(not torch.equal(model.patched(), model.changed) for model in models)
        wrong += greenlet.gettrace() is not None
    print(interrupted, wrong, number)


main()
