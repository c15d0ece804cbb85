"""Models that run in the middle of another model's call, at random moments: handlers.py WAY TIMES [alone].

WAY: `signal` (the handler of a timer), `finalizer` (of an object that Python's collector finds), or `exception` (another
thread raises an exception in the calling one, with no model in the middle). A call that is not broken off gives its own
result, and so does each model in the middle, patched or not. With `alone`, nothing of libgraphpatch is imported, and all calls
must give the result of the first. Prints how often something came in the middle, and how many results were wrong.
"""

import contextlib
import ctypes
import gc
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import torch
from torch import nn

WAY, TIMES, ALONE = sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["alone"]
if not ALONE:
    from libgraphpatch import AddPatch, PatchableGraph, ProbePatch, ZeroPatch


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


class Model:
    """A model, and its results without patches and with its own ones."""

    def __init__(self) -> None:
        self.net, self.x = Net(), torch.ones(2, 4)
        if not ALONE:
            self.pg = PatchableGraph(self.net, self.x)
        self.bare, self.changed = self.net(self.x).clone(), self.patched()

    def patched(self) -> torch.Tensor:
        if ALONE:
            return self.net(self.x)
        probe = ProbePatch()
        with self.pg.patch({"first.output": [AddPatch(value=1.0), probe], "second.sub_1.output": ZeroPatch(slice=0)}):
            result = self.pg(self.x)
        assert torch.equal(probe.activation, self.net.first(self.x) + 1)
        return result

    def wrong(self) -> int:
        """How many of three results are wrong."""
        first, then, last = self.net(self.x), self.patched(), self.net(self.x)
        return sum(not torch.equal(*pair) for pair in [(first, self.bare), (then, self.changed), (last, self.bare)])


came = wrong = 0
busy = False


def come(other: Model) -> None:
    """Something comes in the middle, unless it is there already."""
    global came, wrong, busy
    if not busy:
        busy = True
        came, wrong = came + 1, wrong + other.wrong()
        busy = False


class Loop:
    """Only the collector ends it."""

    def __init__(self, other: Model) -> None:
        self.loop, self.other = self, other

    def __del__(self) -> None:
        come(self.other)


class Stop(Exception):
    pass


@contextlib.contextmanager
def in_the_middle(other: Model, chance: random.Random) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    """What is called before each call of the model, and what is called when an exception has come."""

    def nothing() -> None:
        pass

    if WAY == "signal":
        signal.signal(signal.SIGALRM, lambda *_: come(other))
        yield lambda: signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 5e-4)), nothing
        signal.setitimer(signal.ITIMER_REAL, 0)
    elif WAY == "finalizer":
        gc.set_threshold(30)
        yield lambda: Loop(other) and None, nothing
        gc.set_threshold(700)
    else:
        calls, raising, done = threading.get_ident(), threading.Event(), False

        def throw() -> None:
            while not done:
                if raising.wait(0.1):
                    time.sleep(chance.uniform(1e-6, 5e-4))
                # One that comes while Python runs a finalizer is lost: then another one follows.
                while raising.is_set() and not done:
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(calls), ctypes.py_object(Stop))
                    here.wait(0.5)

        def came() -> None:
            raising.clear()
            here.set()

        def before() -> None:
            here.clear()
            raising.set()

        here = threading.Event()
        sys.unraisablehook = lambda _: None  # Python writes of those that are lost
        thread = threading.Thread(target=throw)
        thread.start()
        yield before, came
        done = True
        thread.join()


def main() -> None:
    global came, wrong
    torch.manual_seed(0)
    torch.set_num_threads(1)
    sys.setswitchinterval(1e-5)
    one, other = Model(), Model()
    with torch.no_grad(), in_the_middle(other, random.Random(7)) as (before, after):
        for _ in range(TIMES):
            thrown = True
            try:
                before()
                wrong += not torch.equal(one.patched(), one.changed)
                thrown = WAY == "exception"
                while thrown:  # until the exception comes
                    one.patched()
            except Stop:
                after()
                came += 1
            wrong += one.wrong()
    wrong += other.wrong()
    print(came, wrong)


main()
