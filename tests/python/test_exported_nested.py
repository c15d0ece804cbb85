"""Exported programs that are called inside the run of another root."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph, ProbePatch, ZeroPatch


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x)))


class Outer(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * 2


@pytest.fixture
def nested() -> tuple[Any, Any, Inner, Tensor]:
    torch.manual_seed(0)
    model, x = Inner(), torch.randn(3, 4)
    program = torch.export.export(model, (x,)).module()
    return PatchableGraph(Outer(program), x), PatchableGraph(program, x), model, x


def test_patches_of_a_program_hold_inside_another_roots_run(nested: tuple[Any, Any, Inner, Tensor]) -> None:
    outer, inner, model, x = nested
    up = model.up(x) + 1
    with (
        inner.patch({"up.output": [AddPatch(value=1.0), probe := ProbePatch()]}),
        outer.patch({"mul": AddPatch(value=3.0)}),
    ):
        assert torch.equal(outer(x), model.down(torch.relu(up)) * 2 + 3)
    assert torch.equal(probe.activation, up)
    assert torch.equal(outer(x), model(x) * 2)


def test_patches_of_the_other_root_hold_in_the_flat_program(nested: tuple[Any, Any, Inner, Tensor]) -> None:
    outer, _, model, x = nested
    with outer.patch({"inner.relu": ZeroPatch(), "inner.output": AddPatch(value=1.0)}):
        assert torch.equal(outer(x), (model.down(torch.zeros(3, 8)) + 1) * 2)
