"""A profiler sees each operation as often as it sees it without us."""

from collections import Counter

import torch
from torch.profiler import ProfilerActivity, profile

from libgraphpatch import PatchableGraph, ProbePatch, ZeroPatch


class Steps(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.linear(x) + 1).mul(2) + x.relu()


def operations(module: torch.nn.Module, x: torch.Tensor) -> Counter[str]:
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        module(x)
    return Counter(event.name for event in seen.events() if event.name.startswith("aten::"))


def test_operations_are_profiled_once() -> None:
    module, x = Steps(), torch.ones(2, 3)
    bare = operations(module, x)
    assert bare["aten::linear"] == 1 and bare["aten::add"] == 2
    pg = PatchableGraph(module, x)
    for patches in ({"mul": ZeroPatch()}, {"add_1": ProbePatch()}, {"linear.linear": ProbePatch()}):
        with pg.patch(patches):
            patched = operations(pg, x)
        assert {name: patched[name] for name in ("aten::linear", "aten::add", "aten::mul", "aten::relu")} == {
            name: bare[name] for name in ("aten::linear", "aten::add", "aten::mul", "aten::relu")
        }, patches


def test_operations_of_a_recorded_run_are_profiled_once() -> None:
    module, x = Steps(), torch.ones(2, 3)
    bare = operations(module, x)
    watching = PatchableGraph.watching(module)
    recorded = operations(module, x)
    assert "add_1" in watching.graph
    assert recorded["aten::linear"] == bare["aten::linear"] and recorded["aten::add"] == bare["aten::add"]
