"""The extension in the library, by which modules are called: what others see of ``torch.nn.Module.__call__``, what it
holds, and that all of it works without it as well."""

from __future__ import annotations

import gc
import inspect
import os
import pickle
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, CustomPatch, PatchableGraph, ProbePatch, ZeroPatch, _module_call
from libgraphpatch._thread import thread
from nets import Net, same

PACKAGE = Path(_module_call.__file__).parents[1]

# A program that must print the same with and without the extension. It runs in a process of its own.
SESSION = """
    import sys
    import torch
    from torch import nn
    from libgraphpatch import AddPatch, PatchableGraph, ProbePatch, ZeroPatch
    from libgraphpatch._native import native

    class Mix(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x, scale=2.0, *rest, flag=None, **more):
            y = self.first(x * scale)
            return {"y": self.second(y), "pair": (y, [len(rest), flag, "text"])}

    torch.manual_seed(0)
    mix, x = Mix(), torch.ones(2, 3)
    pg = PatchableGraph(mix, x, 3.0, flag=True)
    print(repr(pg.graph._shape), pg.graph.first._code)
    probe = ProbePatch()
    with pg.patch({"first.input": AddPatch(value=1.0), "second.output": [ZeroPatch(slice=(..., 0)), probe]}):
        print(mix(x, flag=False), pg(x, 1.0, 5)["pair"][1], probe.activation)
    with pg.patch({"scale": AddPatch(value=1.0)}):
        print(mix(x)["y"], mix(x, scale=4.0)["y"])
    print(mix(x)["y"], native is None, file=sys.stderr)
    print(native is None, file=sys.stderr)
"""


def session(code: str = SESSION, **environment: str) -> tuple[str, str]:
    """The stdout of a process with this environment, and the last line of its stderr."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PACKAGE), **environment},
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout, ran.stderr.splitlines()[-1]


def test_with_and_without_the_extension_all_is_the_same() -> None:
    ours, ours_without = session(GRAPHPATCH_CTYPES="0")
    other, other_without = session(GRAPHPATCH_CTYPES="1")
    assert (ours_without, other_without) == ("False", "True")
    assert ours == other
    assert "mul" in ours


def test_the_call_of_modules_looks_as_torchs_own() -> None:
    net = Net()
    PatchableGraph(net, torch.ones(1, 4))
    original = _module_call._original
    assert vars(nn.Module)["__call__"] is not original
    for call, own in ((nn.Module.__call__, original), (net.__call__, original.__get__(net))):
        assert inspect.signature(call) == inspect.signature(own)
        assert call.__name__ == own.__name__ and call.__doc__ == own.__doc__ and call.__module__ == own.__module__
        assert call.__wrapped__ is original
    assert inspect.isfunction(nn.Module.__call__) and inspect.ismethod(net.__call__)
    assert pickle.loads(pickle.dumps(nn.Module.__call__)) is nn.Module.__call__
    assert net.__call__ == net.__call__ and hash(net.__call__) == hash(net.__call__)
    assert net.__call__.__func__ == nn.Module.__call__


def test_whoever_replaces_the_call_for_a_while_puts_it_back() -> None:
    net, x = Net(), torch.ones(1, 4)
    pg = PatchableGraph(net, x)
    before, seen = nn.Module.__call__, []

    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(type(self))
        return before(self, *args, **kwargs)

    nn.Module.__call__ = wrapped
    try:
        with pg.patch({"output": ZeroPatch()}):
            assert not net(x).any() and seen[0] is Net
    finally:
        nn.Module.__call__ = before
    with pg.patch({"output": ZeroPatch()}):
        assert not net(x).any()
    assert vars(nn.Module)["__call__"] is _module_call._call


class Raises(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def forward(self, x: Tensor, fail: bool = False) -> Tensor:
        y = self.inner(x)
        if fail:
            raise KeyError("the model's own")
        return y


def test_an_error_leaves_the_thread_outside_of_runs_and_holds_nothing() -> None:
    module, x = Raises(), torch.ones(1, 2)
    pg = PatchableGraph(module, x)
    with pg.patch({"inner.output": ZeroPatch()}):
        with pytest.raises(KeyError, match="the model's own"):
            module(x, fail=True)
        assert thread.frame is None and thread.caller is None
        with pytest.raises(TypeError, match="forward"):
            module()
        with pytest.raises(TypeError):
            nn.Module.__call__()
        assert not module(x).any()

    def fails(_: Tensor) -> Tensor:
        raise LookupError("the patch's own")

    with (
        pg.patch({"inner.output": CustomPatch(custom_op=fails)}),
        pytest.raises(LookupError, match="the patch's own") as caught,
    ):
        module(x)
    assert caught.value.__suppress_context__ and thread.frame is None


def test_calls_leave_no_references_behind() -> None:
    module, x = Net(), torch.ones(1, 4)
    pg = PatchableGraph(module, x)
    marker = torch.zeros(1, 4)
    probe = ProbePatch()
    with pg.patch({"blocks_0.output": AddPatch(value=1.0), "blocks_1.output": probe}):
        module(marker)
        before = sys.getrefcount(module), sys.getrefcount(marker), sys.getrefcount(None)
        for _ in range(200):
            module(marker)
        after = sys.getrefcount(module), sys.getrefcount(marker), sys.getrefcount(None)
    assert after[:2] == before[:2] and abs(after[2] - before[2]) < 100
    gone = weakref.ref(module)
    del module, pg, probe
    gc.collect()
    assert gone() is None


def test_a_module_that_takes_anothers_place_is_seen() -> None:
    """The library remembers calls that cannot matter by the module and its place, so that a new module is seen."""
    net, x = Net(), torch.randn(2, 4)
    pg = PatchableGraph(net, x)
    with pg.patch({"output": AddPatch(value=0.0)}):
        net(x), net(x)
        net.blocks[0] = nn.Identity()
        net(x)
    pg.record(x)
    assert same(pg(x), net(x))


RECORDS = """
    import gc
    import sys
    from libgraphpatch._native import native

    frame = native.FrameBase()
    try:
        frame.root
    except AttributeError:
        print("empty")
    frame.root = frame  # a circle, which the garbage collector takes apart
    frame.wants = 7
    print("a number:", frame.wants)
    try:
        frame.wants = "none"
    except TypeError:
        print("refused")
    del frame
    gc.collect()
    print("left:", sum(type(each) is native.FrameBase for each in gc.get_objects()))
    print("done", file=sys.stderr)
"""


def test_records_of_the_extension_are_ordinary_objects() -> None:
    assert session(RECORDS, GRAPHPATCH_CTYPES="0") == ("empty\na number: 7\nrefused\nleft: 0\n", "done")
