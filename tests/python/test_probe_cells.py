"""A probe keeps the value as it was at its node, even if that memory was written later. The model itself makes the
expected copy at that place."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from libgraphpatch import PatchableGraph, ProbePatch
from nets import Function


def by_operation(y: Tensor) -> None:
    y.mul_(3.0)


def through_a_view(y: Tensor) -> None:
    y.view(-1)[2:7].t().copy_(torch.arange(5.0))


def as_out(y: Tensor) -> None:
    torch.add(y, 1, out=y)


def through_numpy(y: Tensor) -> None:
    np.multiply(y.numpy(), 2.0, out=y.numpy())


def through_set_data(y: Tensor) -> None:
    y.data.zero_()


@torch.jit.script
def scripted(y: Tensor) -> None:
    y.add_(2.0)
    y[0] = 9.0


def in_place_module(y: Tensor) -> None:
    nn.ReLU(inplace=True)(y)


WRITERS = [by_operation, through_a_view, as_out, through_numpy, through_set_data, scripted, in_place_module]


class Writing(nn.Module):
    def __init__(self, write: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.write, self.expected = write, torch.empty(0)
        self.linear = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x) - 1
        self.expected = y.detach().clone()
        self.write(y)
        return y * 2


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: getattr(write, "__name__", "scripted"))
@torch.no_grad()
def test_what_is_written_later_is_not_in_what_was_kept(write: Callable[[Tensor], None]) -> None:
    torch.manual_seed(0)
    model, x = Writing(write), torch.randn(4, 6)
    pg = PatchableGraph(model, x)
    bare = model(x)
    probes = {path: ProbePatch[Tensor]() for path in ("sub", "linear.output", "linear.linear")}
    with pg.patch({**probes}):
        assert torch.equal(pg(x), bare)
    kept = probes["sub"].activation
    assert kept is not None and torch.equal(kept, model.expected) and not torch.equal(kept * 2, bare)
    assert torch.equal(probes["linear.output"].activation, probes["linear.linear"].activation)


@torch.no_grad()
def test_the_caller_may_write_into_what_the_run_returned() -> None:
    pg = PatchableGraph(Function(lambda x: (x + 1).t()), torch.zeros(2, 3))
    with pg.patch({"add": (add := ProbePatch[Tensor]()), "output": (output := ProbePatch[Tensor]())}):
        pg(torch.zeros(2, 3)).fill_(7)
        assert torch.equal(add.activation, torch.ones(2, 3))
    assert torch.equal(output.activation, torch.ones(3, 2))


def test_it_is_the_last_value_and_one_object() -> None:
    pg = PatchableGraph(Function(lambda x: (x + 1).relu() * 2), torch.zeros(3))
    probe = ProbePatch[Tensor]()
    assert probe.activation is None and ProbePatch.activation is None
    with pg.patch({"add": probe, "mul": probe}):
        pg(torch.ones(3))
        first = probe.activation
        assert first is probe.activation and torch.equal(first, torch.full((3,), 4.0))
        probe.activation = None
        assert probe.activation is None
        pg(torch.zeros(3))
    assert torch.equal(probe.activation, torch.full((3,), 2.0)) and torch.equal(first, torch.full((3,), 4.0))
    with pg.patch({"add": probe}):
        pg(torch.zeros(3))
        probe.activation = None  # forgets a value that was kept but not read yet
    assert probe.activation is None


def test_copies_of_a_probe_have_the_value_and_keep_their_own() -> None:
    pg = PatchableGraph(Function(lambda x: x + 1), torch.zeros(3))
    probe = ProbePatch[Tensor]()
    with pg.patch({"add": probe}):
        pg(torch.zeros(3))
        others = [copy.copy(probe), copy.deepcopy(probe), pickle.loads(pickle.dumps(probe))]
        pg(torch.ones(3))
    assert torch.equal(probe.activation, torch.full((3,), 2.0))
    for other in others:
        assert torch.equal(other.activation, torch.ones(3))
        with pg.patch({"add": other}):
            pg(torch.full((3,), 4.0))
        assert torch.equal(other.activation, torch.full((3,), 5.0))
    assert "tensor([2., 2., 2.])" in repr(probe)


def test_a_value_has_no_history_and_its_own_memory() -> None:
    weight = nn.Parameter(torch.ones(3))
    pg = PatchableGraph(Function(lambda x: (x * weight).expand(2, 3)), torch.ones(3))
    with pg.patch({"mul": (mul := ProbePatch[Tensor]()), "expand": (expand := ProbePatch[Tensor]())}):
        pg(torch.ones(3)).sum().backward()
    for probe, shape in ((mul, (3,)), (expand, (2, 3))):
        kept = probe.activation
        assert kept is not None and kept.shape == shape and not kept.requires_grad and kept._base is None
    assert torch.equal(weight.grad, torch.full((3,), 2.0))


def test_values_that_come_otherwise_are_kept_by_the_patch_itself() -> None:
    seen = []

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    pg = PatchableGraph(Function(lambda x: (x + 1).to_sparse()), torch.eye(3))
    with pg.patch({"to_sparse": (sparse := ProbePatch[Tensor]()), "add": (add := ProbePatch[Tensor]())}):
        pg(torch.eye(3))
        assert sparse.activation.is_sparse and torch.equal(sparse.activation.to_dense(), torch.eye(3) + 1)
        with Watching():
            pg(torch.zeros(3, 3))
        assert torch.equal(add.activation, torch.ones(3, 3)) and "aten.clone.default" in seen


def test_threads_keep_what_they_computed() -> None:
    pg = PatchableGraph(Function(lambda x: (x + 1) * 2), torch.zeros(64))
    probes = [ProbePatch[Tensor]() for _ in range(4)]
    wrong: list[int] = []

    def work(number: int) -> None:
        for step in range(50):
            with pg.patch({"add": probes[number]}, this_thread=True):
                pg(torch.full((64,), float(step)))
            if not torch.equal(probes[number].activation, torch.full((64,), step + 1.0)):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
