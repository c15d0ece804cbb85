"""Forks while a timer's handler raises an exception at a random moment: interrupted_forks.py.

Every child runs a model in a block of patches. Prints as JSON how many exceptions came up, how many children ended, how
many of these had no right result, and in which of our functions an exception was lost.
"""

import json
import os
import signal
import sys
from functools import partial

import torch
from torch import nn

from libgraphpatch import PatchableGraph, ProbePatch


class Deadline(Exception):
    pass


lost = []


def ring(*_):
    raise Deadline


def note(of):
    """The standard library's own functions around a fork lose some."""
    function = of.object
    if isinstance(function, partial) or str(getattr(function, "__module__", "")).startswith("libgraphpatch"):
        lost.append(repr(function))


def child(pg, x, expected):
    try:
        with pg.patch({"output": ProbePatch()}):
            os._exit(int(not torch.equal(pg(x), expected)))
    except BaseException:
        os._exit(2)


def main():
    torch.set_num_threads(1)
    net, x = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.ones(1, 2)
    pg = PatchableGraph(net, x)
    expected = net(x)
    sys.unraisablehook = note
    signal.signal(signal.SIGALRM, ring)
    came = children = wrong = 0
    for delay in [1e-6 * 1.2**step for step in range(50)]:
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                if not os.fork():
                    child(pg, x, expected)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Deadline:
            came += 1
        while True:
            try:
                _, status = os.waitpid(-1, 0)
            except ChildProcessError:
                break
            children, wrong = children + 1, wrong + (status != 0)
        wrong += not torch.equal(pg(x), expected)
    print(json.dumps({"came": came, "children": children, "wrong": wrong, "lost": lost}))


main()
