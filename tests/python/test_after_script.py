"""The library leaves no traces after it has run a scripted module: neither in the executor nor in the module."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph
from nets import Calls

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)))


X = torch.arange(2 * 3 * 8 * 8).view(2, 3, 8, 8) / 100


def test_the_executor_goes_on_as_before() -> None:
    module = Calls(torch.jit.script(Net())).eval()
    with torch.no_grad():
        bare = module(X)
        pg = PatchableGraph(module, X)
        with pg.patch({"inner.conv.output": AddPatch(value=1.0)}):
            assert not torch.equal(pg(X), bare)
    assert torch._C._get_graph_executor_optimize()
    expected = module.inner(X)
    frozen = torch.jit.freeze(module.inner)
    inference = torch.jit.optimize_for_inference(torch.jit.script(Net()).eval())
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(frozen(X), expected)
            assert inference(X).shape == expected.shape
    assert torch._C._get_graph_executor_optimize()


def test_making_a_graph_leaves_statistics_alone() -> None:
    module = Calls(torch.jit.script(Net())).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    pg = PatchableGraph(module, X)
    assert pg.graph.inner.norm.running_mean is not None
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
