"""Many threads, one PatchableGraph: each run is its own, and each sees whole patch sets."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, CustomPatch, PatchableGraph, ProbePatch, ReplacePatch, ZeroPatch
from libgraphpatch._threads import this_thread
from nets import Block, Net, same

THREADS = 4
TIMEOUT = 600  # after so many seconds a thread counts as hung


def in_threads(*functions: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(len(functions)) as pool:
        return [future.result(timeout=TIMEOUT) for future in [pool.submit(function) for function in functions]]


def test_patches_hold_on_all_threads() -> None:
    pg = PatchableGraph(Net(), torch.randn(3, 4))
    net, xs = pg.module, [torch.randn(3, 4) for _ in range(THREADS)]
    with pg.patch({"blocks_0.output": AddPatch(value=1.0), "blocks_1.up.bias": ZeroPatch()}):
        patched = in_threads(*[lambda x=x: [pg(x) for _ in range(10)] for x in xs])
    for x, results in zip(xs, patched):
        hidden, block = net.blocks[0](x) + 1, net.blocks[1]
        expected = hidden + block.down(torch.sigmoid(nn.functional.linear(hidden, block.up.weight, torch.zeros(6))) * 2)
        assert all(same(result, expected) for result in results)


def test_every_run_sees_a_whole_set_while_patches_change() -> None:
    net, x = Net(), torch.randn(3, 4)
    pg = PatchableGraph(net, x)
    # Each run must have both patches or none: only one of them would give a third result.
    bare, both = net(x), net.blocks[1](torch.full((3, 4), 2.0)) + 1
    stop, other = threading.Event(), []

    def run() -> int:
        runs = 0
        while not stop.is_set():
            y = pg(x)
            if not same(y, bare) and not same(y, both):
                other.append(y)
            runs += 1
        return runs

    def change() -> None:
        add = CustomPatch(custom_op=lambda y: y + 1)
        for _ in range(100):
            with pg.patch({"blocks_0.output": ReplacePatch(value=2.0), "output": add}):
                pg(x)
        stop.set()

    runs = in_threads(change, run, run)
    assert not other and min(runs[1:]) > 0
    assert same(pg(x), bare)


def test_blocks_of_several_threads_do_not_end_each_other() -> None:
    net, x = Net(), torch.randn(3, 4)
    pg = PatchableGraph(net, x)
    first_open, second_open, first_closed = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with pg.patch({"blocks_0.output": ZeroPatch()}, this_thread=True):
            first_open.set()
            assert second_open.wait(TIMEOUT)
        first_closed.set()

    def second() -> Tensor:
        assert first_open.wait(TIMEOUT)
        with pg.patch({"output": ZeroPatch()}, this_thread=True):
            second_open.set()
            assert first_closed.wait(TIMEOUT)
            return pg(x)

    assert not in_threads(first, second)[1].any()


def test_patches_for_this_thread() -> None:
    net, x = Net(), torch.randn(3, 4)
    pg, bare = PatchableGraph(net, x), net(x)
    barrier = threading.Barrier(THREADS)

    def add(value: float) -> bool:
        expected = net.blocks[1](net.blocks[0](x) + value)
        barrier.wait()
        with pg.patch({"blocks_0.output": AddPatch(value=value)}, this_thread=True):
            results = [pg(x) for _ in range(20)]
            barrier.wait()
        return all(same(result, expected) for result in results)

    assert all(in_threads(*[lambda value=value: add(float(value)) for value in range(THREADS)]))
    with pg.patch({"output": ZeroPatch()}, this_thread=True):
        assert same(in_threads(lambda: pg(x))[0], bare) and not pg(x).any()


def test_errors_of_functions_reach_the_thread_that_ran() -> None:
    pg = PatchableGraph(Net(), torch.randn(3, 4))

    def fail(value: Tensor) -> Tensor:
        raise LookupError(threading.current_thread().name)

    def run() -> bool:
        for _ in range(20):
            try:
                pg(torch.randn(3, 4))
            except LookupError as error:
                if str(error) != threading.current_thread().name:
                    return False
            else:
                return False
        return True

    with pg.patch({"blocks_0.sigmoid": CustomPatch(custom_op=fail)}):
        assert all(in_threads(*[run] * THREADS))


def test_a_block_may_open_while_another_thread_records() -> None:
    net, x = Net(), torch.randn(3, 4)
    pg = PatchableGraph(net, x)

    def patched() -> Tensor:
        with pg.patch({"output": ZeroPatch()}, this_thread=True):
            return pg(x)

    with pg.recording():
        assert not in_threads(patched)[0].any()
        assert same(pg(x), net(x))


class Parallel(nn.Module):
    """Runs its parts on threads of its own, as DataParallel does."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([Block(), Block()])
        self.before, self.after = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return self.after(torch.stack(in_threads(*[lambda part=part: part(x) for part in self.parts])).sum(0))


def test_threads_inside_a_forward_are_not_seen_and_that_is_said() -> None:
    module, x = Parallel(), torch.randn(3, 4)
    pg = PatchableGraph(module, x)
    assert [str(node) for node in pg.graph] == ["x", "before", "stack", "sum_1", "after", "output"]
    assert any("Block" in note and "another thread" in note for note in pg.notes)
    with pg.patch({"before.output": AddPatch(value=1.0), "stack": (probe := ProbePatch())}):
        patched = pg(x)
    hidden = module.before(x) + 1
    assert same(probe.activation, torch.stack([part(hidden) for part in module.parts]).detach())
    assert same(patched, module.after(torch.stack([part(hidden) for part in module.parts]).sum(0)))


def test_no_block_is_told_that_its_patch_never_matched_while_others_begin() -> None:
    """Each thread has blocks of its own, and its calls reach their patches. Threads switch as often as possible."""
    net, x = nn.Linear(4, 4), torch.randn(3, 4)
    pg = PatchableGraph(net, x)
    interval = sys.getswitchinterval()

    def blocks() -> None:
        for _ in range(600):
            with pg.patch({"linear": ZeroPatch()}, on_missing="raise") as block:
                pg(x)
            assert block.counts["linear"][0].matched >= 1

    sys.setswitchinterval(1e-6)
    try:
        in_threads(*[blocks] * THREADS)
    finally:
        sys.setswitchinterval(interval)


def test_the_number_of_a_thread_keeps_nothing_alive() -> None:
    """Neither the frame that asks for it, nor what that holds."""

    class Held:
        pass

    def ask() -> weakref.ref[Held]:
        held = Held()
        assert this_thread() == threading.get_ident()
        return weakref.ref(held)

    gc.disable()
    try:
        assert ask()() is None
    finally:
        gc.enable()
