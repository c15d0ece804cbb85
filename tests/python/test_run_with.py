"""`pg.run_with`: one run with patches."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from libgraphpatch import MissingPatchWarning, PatchableGraph, ProbePatch, StopPatch, ZeroPatch


@pytest.fixture
def pg() -> PatchableGraph:
    torch.manual_seed(0)
    return PatchableGraph(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), torch.ones(1, 4))


def test_a_run_with_patches_leaves_none_behind(pg: PatchableGraph) -> None:
    x = torch.ones(1, 4)
    bare = pg.module(x)
    assert torch.equal(pg.run_with({"sub_1.output": ZeroPatch()}, x), pg.module[2].bias[None])
    assert torch.equal(pg.run_with({"sub_1.output": ZeroPatch()}, input=x), pg.module[2].bias[None])
    assert torch.equal(pg(x), bare) and torch.equal(pg.run_with({}, x), bare)
    with pg.patch({"sub_2.bias": ZeroPatch()}):
        assert torch.equal(pg.run_with({"sub_1.output": ZeroPatch()}, x), torch.zeros(1, 2))


def test_a_run_that_ends_early_returns_none(pg: PatchableGraph) -> None:
    probe = ProbePatch()
    assert pg.run_with({"sub_0.output": [probe, StopPatch()]}, torch.ones(1, 4)) is None
    assert torch.equal(probe.activation, pg.module[0](torch.ones(1, 4)))


def test_what_is_wrong_is_said(pg: PatchableGraph) -> None:
    with pytest.raises(KeyError, match="sub_7"):
        pg.run_with({"sub_7.output": ZeroPatch()}, torch.ones(1, 4))
    with pytest.raises(ValueError, match="not 0"):
        pg.run_with({"sub_0.output": 0}, torch.ones(1, 4))
    first = pg.module.forward

    def without(x: torch.Tensor) -> torch.Tensor:
        return pg.module[0](x)

    pg.module.forward = without
    with pytest.warns(MissingPatchWarning, match="sub_1.output"):
        pg.run_with({"sub_1.output": ZeroPatch()}, torch.ones(1, 4))
    pg.module.forward = first
