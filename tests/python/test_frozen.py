"""Frozen modules whose functions libtorch has freed: their graphs still point there, and nobody may look."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import PatchableGraph, ZeroPatch
from nets import Around

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Net(nn.Module):
    """Freezing keeps the submodule, whose statistics are written, but frees its functions."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(3, track_running_stats=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) + 1

    @torch.jit.export
    def encode(self, x: Tensor) -> Tensor:
        return self.norm(x) + 2


class Calls(nn.Module):
    def __init__(self, call: Callable[[torch.jit.ScriptModule, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner = torch.jit.freeze(torch.jit.script(Net().eval()), preserved_attrs=["encode"])
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.inner, x) * 2


@pytest.mark.parametrize(
    ("call", "scope"),
    [
        (lambda inner, x: inner(x), "inner."),
        (lambda inner, x: inner.forward(x), ""),
        (lambda inner, x: inner.encode(x), ""),
    ],
    ids=["called", "its forward", "another method"],
)
def test_a_frozen_module_is_recorded_and_patched(
    call: Callable[[torch.jit.ScriptModule, Tensor], Tensor], scope: str
) -> None:
    x = torch.arange(96.0).view(2, 3, 4, 4)
    for _ in range(3):  # the freed memory has other contents from the second time on
        module = Calls(call).eval()
        bare = module(x)
        pg = PatchableGraph(module, x)
        assert torch.equal(pg(x), bare)
        with pg.patch({f"{scope}instance_norm": ZeroPatch()}, on_missing="raise"):
            assert pg(x).unique().numel() == 1
        assert torch.equal(module(x), bare)


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(x) * 3


def test_the_code_of_what_was_inlined_names_where_it_was_called() -> None:
    pg = PatchableGraph(Around(torch.jit.freeze(torch.jit.script(Line().eval()))), torch.ones(2, 3))
    assert "return self.line(x) * 3" in pg.graph.inner.linear._code
