"""Functions of autograd that call modules, and handlers that run a model in the middle of another run."""

import gc
import signal
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, CustomPatch, PatchableGraph, PatchError, ProbePatch
from nets import names


class Through(torch.autograd.Function):
    """Calls a module, and passes gradients straight on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: nn.Module) -> Tensor:
        return module(x) * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class CallsThrough(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(Through.apply(x, self.inner))


def test_a_function_of_autograd_calls_a_module() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    module = CallsThrough()
    bare = module(x)
    pg = PatchableGraph(module, x)
    assert names(pg.graph).count("inner") == 1
    expected = torch.relu((module.inner(x) + 1) * 2)
    with pg.patch({"inner.output": AddPatch(value=1.0), "relu": (relu := ProbePatch())}):
        with torch.no_grad():
            assert torch.equal(pg(x), expected)
        assert torch.equal(relu.activation, expected)
        # The function's own backward does not know the patch, so that its gradient would be wrong.
        with pytest.raises(PatchError, match="inside a torch.autograd.Function"):
            pg(x)
    with pg.patch({"inner.output": (inner := ProbePatch()), "relu": AddPatch(value=1.0)}):
        patched = pg(x)
    assert torch.equal(inner.activation, module.inner(x)) and torch.equal(patched, bare + 1)
    (gradient,) = torch.autograd.grad(patched.sum(), x)
    assert torch.equal(gradient, (bare > 0).float())
    assert torch.equal(pg(x), bare)


def test_a_handler_of_a_signal_runs_a_model() -> None:
    x = torch.randn(2, 3)
    other = PatchableGraph(nn.Linear(3, 3), x)
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    pg = PatchableGraph(module, x)
    ran: list[Tensor] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: ran.append(other(x)))

    def function(value: Tensor) -> Tensor:
        signal.raise_signal(signal.SIGUSR1)
        return value + 1

    try:
        with pg.patch({"sub_0.linear": CustomPatch(custom_op=function), "output": AddPatch(value=1.0)}):
            assert torch.equal(pg(x), torch.relu(module[0](x) + 1) + 1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(ran) == 1 and torch.equal(ran[0], other(x))


def test_a_weak_references_callback_runs_a_model() -> None:
    x = torch.randn(2, 3)
    other = PatchableGraph(nn.Linear(3, 3), x)
    ran: list[Tensor] = []
    watched: list[Any] = []

    class Drops(nn.Module):
        """Frees a tensor between two operations; its finalizer runs the other model."""

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(x)
            watched.append(weakref.ref(y, lambda _: ran.append(other(x))))
            y = y + 1
            return y * 2

    pg = PatchableGraph(Drops(), x)
    assert [name for name in names(pg.graph) if name != "Linear"] == ["x", "relu", "add", "mul", "output"]
    for _ in range(3):
        with pg.patch({"relu": AddPatch(value=1.0), "mul": (probe := ProbePatch())}):
            expected = (torch.relu(x) + 2) * 2
            assert torch.equal(pg(x), expected) and torch.equal(probe.activation, expected)
    gc.collect()
    assert ran and all(torch.equal(value, other(x)) for value in ran)
