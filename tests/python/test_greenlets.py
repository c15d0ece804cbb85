"""Programs with greenlets: a call is left in its middle, and others are made on the same thread before it goes on."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import greenlet
import pytest
import torch
from greenlet import getcurrent
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from libgraphpatch import AddPatch, PatchableGraph, ProbePatch, ZeroPatch
from nets import Part, same

X = torch.tensor([[1.0, -2.0, 3.0], [0.5, 0.25, -1.0]])


class Pause(nn.Module):
    """Goes back to the greenlet that has started this one. In the thread's main greenlet, it does nothing."""

    def forward(self, x: Tensor) -> Tensor:
        outer = getcurrent().parent
        if outer is not None:
            outer.switch()
        return x


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.pause, self.last = Part(), Pause(), Part()

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(self.last(self.pause(self.first(x))))


class InTheMiddle(Whole):
    """Pauses between operations, and not where a module is called."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x) * 2
        outer = getcurrent().parent
        if outer is not None:
            outer.switch()
        return torch.exp(self.last(y - 1))


class Direct(Whole):
    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(self.last.forward(self.pause.forward(self.first.forward(x))))


class Hooked(Whole):
    def __init__(self) -> None:
        super().__init__()
        self.last.register_forward_hook(lambda _module, _args, output: output * 3)
        self.register_forward_hook(lambda _module, _args, output: output + 1)


class Checkpointed(Whole):
    def forward(self, x: Tensor) -> Tensor:
        again: Tensor = checkpoint(lambda y: self.last(self.pause(self.first(y))), x, use_reentrant=False)
        return torch.exp(again)


KINDS = [Whole, InTheMiddle, Direct, Hooked, Checkpointed]


@pytest.fixture(autouse=True)
def no_trace_is_left(nothing_compiled: None) -> Iterator[None]:
    yield
    assert greenlet.gettrace() is None


class Turn:
    """A call in a greenlet, which has begun when this object is made, and which ``go_on()`` goes on with."""

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.results: list[Any] = []
        results = self.results

        # It does not hold this object, by which it would hold its own greenlet for ever.
        def run() -> None:
            results.append(call(*args))

        self.greenlet = greenlet.greenlet(run)
        self.greenlet.switch()

    def go_on(self) -> Any:
        self.greenlet.switch()
        assert self.greenlet.dead
        return self.results[0]


def weights_of(model: Whole, other: Whole) -> Whole:
    other.load_state_dict(model.state_dict())
    return other


def by_hooks(model: Whole, first: float, last: float, x: Tensor = X) -> Tensor:
    """The result with these numbers added to what the two parts return before all other hooks."""
    if isinstance(model, Direct):  # it runs no hooks
        model = weights_of(model, Whole())
    held = [
        model.first.register_forward_hook(lambda _module, _args, output: output + first, prepend=True),
        model.last.register_forward_hook(lambda _module, _args, output: output + last, prepend=True),
    ]
    try:
        result: Tensor = model(x)
        return result
    finally:
        for hook in held:
            hook.remove()


@pytest.mark.parametrize("kind", KINDS)
def test_two_models_take_turns(kind: type[Whole]) -> None:
    one, two = kind(), kind()
    expected = by_hooks(one, 1.0, 2.0), by_hooks(two, 0.0, 4.0)
    bare = one(X), two(X)
    pgs = PatchableGraph(one, X), PatchableGraph(two, X)
    with (
        pgs[0].patch({"first.output": AddPatch(value=1.0), "last.output": AddPatch(value=2.0)}),
        pgs[1].patch({"last.output": AddPatch(value=4.0)}),
    ):
        turns = [Turn(pgs[0], X), Turn(two, X)]
        assert same(pgs[1](X), expected[1])  # on the main greenlet, in between
        assert same(turns[0].go_on(), expected[0])
        assert same(turns[1].go_on(), expected[1])
    assert same(one(X), bare[0])
    assert same(two(X), bare[1])


@pytest.mark.parametrize("kind", KINDS)
def test_one_model_takes_turns_with_itself(kind: type[Whole]) -> None:
    model = kind()
    inputs = [X, X * 2, X - 1]
    expected = [by_hooks(model, 1.0, 2.0, x) for x in inputs]
    pg = PatchableGraph(model, X)
    probes = ProbePatch(), ProbePatch()
    patches = [AddPatch(value=1.0), probes[0]], [AddPatch(value=2.0), probes[1]]
    with pg.patch({"first.output": patches[0], "last.output": patches[1]}):
        turns = [Turn(pg, x) for x in inputs]
        for turn, result in zip(reversed(turns), reversed(expected), strict=True):
            assert same(turn.go_on(), result)
    assert all(probe.activation is not None for probe in probes)
    assert same(model(X), by_hooks(model, 0.0, 0.0))


def test_a_call_of_which_nothing_is_wanted() -> None:
    model, other = Whole(), Whole()
    expected, patched = model(X), by_hooks(other, 1.0, 0.0)
    pg = PatchableGraph(other, X)
    turn = Turn(model, X)
    with pg.patch({"first.output": AddPatch(value=1.0)}):
        within = Turn(model, X)
        assert same(pg(X), patched)
        assert same(turn.go_on(), expected)
        assert same(within.go_on(), expected)
        assert same(pg(X), patched)


@pytest.mark.parametrize("kind", [Whole, InTheMiddle, Direct, Hooked])
def test_graphs_are_recorded_apart(kind: type[Whole]) -> None:
    one, two = kind(), kind()
    expected = repr(PatchableGraph(one, X).graph)
    made: list[PatchableGraph] = []

    def make(model: Whole) -> None:
        made.append(PatchableGraph(model, X))

    turns = [Turn(make, one), Turn(make, two)]
    PatchableGraph(kind(), X)
    for turn in reversed(turns):  # torch.no_grad() of a constructor belongs to the thread, and must end in this order
        turn.go_on()
    assert [repr(pg.graph) for pg in made] == [expected, expected]
    assert not made[0].notes and not made[1].notes


def test_a_greenlet_that_nobody_holds_ends_in_its_middle() -> None:
    model, other = Whole(), Whole()
    patched = by_hooks(model, 1.0, 2.0)
    pg = PatchableGraph(model, X)
    with pg.patch({"first.output": AddPatch(value=1.0), "last.output": AddPatch(value=2.0)}):
        turn = Turn(pg, X)
        del turn
        gc.collect()
        assert same(pg(X), patched)
        assert same(other(X), by_hooks(other, 0.0, 0.0))


def test_an_exception_is_thrown_into_a_call() -> None:
    model = Whole()
    pg = PatchableGraph(model, X)
    with pg.patch({"last.output": ZeroPatch()}):
        left, turn = Turn(pg, X), Turn(pg, X)
        with pytest.raises(KeyError, match="thrown"):
            turn.greenlet.throw(KeyError("thrown"))
        assert same(left.go_on(), torch.ones(2, 3))
        assert same(pg(X), torch.ones(2, 3))


def test_nested_runs() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.end = Whole(), Part()

        def forward(self, x: Tensor) -> Tensor:
            return self.end(self.inner(x))

    model, other = Outer(), Whole()
    outer, inner, apart = PatchableGraph(model, X), PatchableGraph(model.inner, X), PatchableGraph(other, X)
    with torch.no_grad():
        expected = model.end(by_hooks(model.inner, 0.0, 2.0)) + 5
        patched = by_hooks(other, 1.0, 0.0)
        with (
            outer.patch({"end.output": AddPatch(value=5.0)}),
            inner.patch({"last.output": AddPatch(value=2.0)}),
            apart.patch({"first.output": AddPatch(value=1.0)}),
        ):
            turns = [Turn(outer, X), Turn(apart, X), Turn(outer, X)]
            assert same(apart(X), patched)
            assert [
                same(turn.go_on(), result) for turn, result in zip(turns, (expected, patched, expected), strict=True)
            ]


def test_the_programs_own_trace_is_called_and_stays() -> None:
    events: list[str] = []

    def trace(event: str, _greenlets: Any) -> None:
        events.append(event)

    model = Whole()
    pg = PatchableGraph(model, X)
    greenlet.settrace(trace)
    try:
        with pg.patch({"last.output": ZeroPatch()}):
            assert same(Turn(pg, X).go_on(), torch.ones(2, 3))
        assert greenlet.gettrace() is trace
    finally:
        greenlet.settrace(None)
    assert events == ["switch"] * 4


REPLACED = """
import _threading_local, threading, torch
class Local(_threading_local.local): pass
interpreters, threading.local = threading.local, Local
def lock(): raise RuntimeError("a stand-in was used")
interpreters_lock, threading.RLock = threading.RLock, lock
import libgraphpatch
from libgraphpatch._thread import Thread
threading.RLock = interpreters_lock
assert issubclass(Thread, interpreters) and not issubclass(Thread, Local)
x = torch.ones(2, 3)
module = torch.nn.Linear(3, 3)
expected = module(x) + 1
pg = libgraphpatch.PatchableGraph(module, x)
with pg.patch({"output": libgraphpatch.AddPatch(value=1.0)}):
    print(torch.equal(pg(x), expected))
"""


def test_threads_were_replaced_before_the_import() -> None:
    """gevent and eventlet do so. Their thread-locals refuse attributes that an extension describes."""
    done = subprocess.run([sys.executable, "-c", REPLACED], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_greenlets_of_several_threads() -> None:
    models = [Whole() for _ in range(4)]
    pgs = [PatchableGraph(model, X) for model in models]
    expected = [by_hooks(model, 1.0, float(i)) for i, model in enumerate(models)]
    wrong: list[int] = []

    def work(i: int) -> None:
        with pgs[i].patch({"first.output": AddPatch(value=1.0), "last.output": AddPatch(value=float(i))}):
            for _ in range(20):
                turns = [Turn(pgs[i], X) for _ in range(3)]
                wrong.extend(i for turn in turns if not same(turn.go_on(), expected[i]))
        assert greenlet.gettrace() is None

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
