"""Probes that keep a value in every run: the memory of a value that was not read is used again, and one that was read
is not changed. The model itself makes the expected copy at that place."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import PatchableGraph, ProbePatch
from nets import Function

SHAPES = [
    torch.arange(12.0).reshape(3, 4),
    torch.arange(12.0).reshape(4, 3).t(),
    torch.arange(6.0).reshape(2, 3),
    torch.arange(12).reshape(3, 4),
    torch.arange(24.0).reshape(2, 1, 3, 4).contiguous(memory_format=torch.channels_last),
    torch.arange(24.0).reshape(2, 1, 3, 4),
    torch.arange(12.0).reshape(3, 4)[:, ::2],
    torch.tensor(3.0).expand(2, 3),
    torch.empty(0, 4),
    torch.tensor(5.0),
]


class Keeper(nn.Module):
    """Keeps its own copy of the value and of the weight that the probes meet."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.expected: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        self.expected = {"linear.output": y.detach().clone(), "linear.weight": self.linear.weight.detach().clone()}
        return y.relu()


@pytest.mark.parametrize("threads", [1, 2])
@torch.no_grad()
def test_every_run_keeps_the_value_of_its_own(threads: int) -> None:
    """The width of 300 makes libtorch copy the values with several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(0)
        model = Keeper(300)
        pg = PatchableGraph(model, torch.randn(200, 300))
        probes = {path: ProbePatch[Tensor]() for path in ("linear.output", "linear.weight")}
        weight = model.linear.weight
        changes = [
            lambda: None,
            lambda: weight.detach().numpy().__setitem__((299, 299), 8.0),
            lambda: weight.data.mul_(0.5),
            lambda: weight.view(-1)[5000].fill_(-1),
        ]
        with pg.patch({**probes}):
            for change in changes * 2:
                change()
                for _ in range(2):
                    pg(torch.randn(200, 300))
                kept = {path: probe.activation for path, probe in probes.items()}
                assert all(torch.equal(kept[path], model.expected[path]) for path in probes)
                copies = {path: value.clone() for path, value in kept.items()}
                pg(torch.randn(200, 300))
                assert all(torch.equal(kept[path], copies[path]) for path in probes)
                assert kept["linear.weight"].data_ptr() != weight.data_ptr()
    finally:
        torch.set_num_threads(before)


def test_the_layout_is_that_of_a_clone_of_the_last_value() -> None:
    pg = PatchableGraph(Function(lambda x: x.detach()), torch.zeros(3))
    for one in SHAPES:
        for other in SHAPES:
            probe = ProbePatch[Tensor]()
            with pg.patch({"detach": probe}):
                pg(one)
                pg(other)
            kept, wanted = probe.activation, other.clone()
            assert kept is not None and kept.dtype == wanted.dtype and kept.stride() == wanted.stride()
            assert torch.equal(kept, wanted)


def test_nan_and_signed_zeros_are_kept_bit_by_bit() -> None:
    pg = PatchableGraph(Function(lambda x: x + 0.0 if x.dim() else x.detach()), torch.zeros(3))
    probe = ProbePatch[Tensor]()
    bits = [0x00000000, -0x80000000, 0x7FC00000, 0x7FC00001]
    seen = []
    with pg.patch({"x": probe}):
        for pattern in bits:
            pg(torch.tensor([pattern] * 3, dtype=torch.int32).view(torch.float32))
            if pattern != bits[1]:  # this value is not read, so that the next run overwrites it
                seen.append(probe.activation.view(torch.int32).tolist())
    assert seen == [[pattern] * 3 for pattern in bits if pattern != bits[1]]


def test_a_kept_value_is_an_inference_tensor_only_if_its_run_was_in_inference_mode() -> None:
    """Memory of a run in inference mode must not be used again: such a tensor can never take part in a gradient."""
    pg = PatchableGraph(Function(lambda x: x + 1), torch.zeros(3))
    probe = ProbePatch[Tensor]()
    with pg.patch({"add": probe}):
        with torch.inference_mode():
            pg(torch.zeros(3))
        pg(torch.ones(3))
        kept = probe.activation
    assert kept is not None and not kept.is_inference()
    weight = torch.ones(3, requires_grad=True)
    (weight * kept).sum().backward()
    assert torch.equal(weight.grad, torch.full((3,), 2.0))


@torch.no_grad()
def test_a_probe_that_is_read_while_runs_go_on_never_mixes_two_of_them() -> None:
    """All elements of a run's value are equal, so that a mixture of two runs shows."""
    pg = PatchableGraph(Function(lambda x: x + 1), torch.zeros(20_000))
    probe = ProbePatch[Tensor]()
    over = threading.Event()
    torn: list[Tensor] = []

    def ask() -> None:
        while not over.is_set():
            kept = probe.activation
            if kept is not None and not torch.equal(kept, kept[:1].expand_as(kept)):
                torn.append(kept)

    asking = threading.Thread(target=ask)
    with pg.patch({"add": probe}):
        asking.start()
        for step in range(300):
            pg(torch.full((20_000,), float(step)))
        over.set()
        asking.join()
    assert not torn and torch.equal(probe.activation, torch.full((20_000,), 300.0))
