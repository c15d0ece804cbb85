"""What is done when an object is gone comes to its end, and no exception of a signal handler is lost in it."""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from checkout import ROOT
from libgraphpatch import PatchableGraph, ProbePatch
from libgraphpatch._gone import OfObjects, when_gone
from libgraphpatch._native import native

pytestmark = pytest.mark.skipif(native is None, reason="without the extension Python prints such exceptions")

FORKS = ROOT / "tests/programs/python/interrupted_forks.py"


class Deadline(Exception):
    pass


class Held:
    pass


@pytest.fixture(autouse=True)
def nothing_is_printed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    lost: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)

    def ring(*_: Any) -> None:
        raise Deadline

    before = signal.signal(signal.SIGUSR1, ring)
    yield
    signal.signal(signal.SIGUSR1, before)
    assert not lost


def instructions() -> None:
    for _ in range(1000):
        pass


def test_an_exception_comes_up_after_the_function_has_ended() -> None:
    came: list[str] = []

    def function(name: str) -> None:
        came.append(name)
        if len(came) == 1:
            signal.raise_signal(signal.SIGUSR1)
        came.append("end")

    held = Held()
    when_gone(held, function, "begin")
    with pytest.raises(Deadline):
        del held
        instructions()
    assert came == ["begin", "begin", "end"]


def test_each_of_several_exceptions_comes_up() -> None:
    came: list[int] = []

    def function() -> None:
        came.append(1)
        if len(came) < 4:
            signal.raise_signal(signal.SIGUSR1)

    held = Held()
    when_gone(held, function)
    with pytest.raises(Deadline) as raised:
        try:
            try:
                del held
                instructions()
            finally:
                instructions()
        finally:
            instructions()
    contexts = [raised.value, raised.value.__context__, getattr(raised.value.__context__, "__context__", None)]
    assert len(came) == 4
    assert all(isinstance(error, Deadline) for error in contexts)


def test_a_fault_of_the_function_itself_is_printed_and_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda of: printed.append(of.exc_type))

    def function() -> None:
        raise ZeroDivisionError

    held = Held()
    when_gone(held, function)
    del held
    instructions()
    assert printed == [ZeroDivisionError]


def test_in_a_collection_of_garbage() -> None:
    came: list[int] = []

    def function() -> None:
        came.append(1)
        if len(came) == 1:
            signal.raise_signal(signal.SIGUSR1)

    gc.collect()  # else the exception may come up in a `__del__` of other garbage, where Python drops it
    held: Any = Held()
    held.itself = held
    when_gone(held, function)
    del held
    with pytest.raises(Deadline):
        gc.collect()
        instructions()
    assert len(came) == 2


def test_around_a_fork() -> None:
    """The exception comes up in the process that was interrupted, and in no child; the child can take every lock."""
    done = subprocess.run([sys.executable, str(FORKS)], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["came"] and found["children"]
    assert found["wrong"] == 0
    assert found["lost"] == []


def test_a_probe_that_is_gone_frees_its_cell_once() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    pg = PatchableGraph(net, torch.ones(1, 2))
    for _ in range(20):
        probe = ProbePatch()
        with pg.patch({"output": probe}):
            pg(torch.ones(1, 2))
        assert probe.activation is not None
        gone = weakref.ref(probe)
        del probe
        gc.collect()
        assert gone() is None


def test_values_of_objects() -> None:
    """They belong to the object itself, also where its class says that it equals others."""

    class Equal:
        def __eq__(self, other: object) -> bool:
            raise AssertionError

        def __hash__(self) -> int:
            raise AssertionError

    values = OfObjects()
    one, other = Equal(), Equal()
    values.put(one, 1)
    values.put(other, 2)
    values.put(one, 3)
    assert (values.get(one), values.get(other)) == (3, 2)
    del one
    assert values.get(other) == 2
    values.drop(other)
    assert values.get(other) is None and not values
