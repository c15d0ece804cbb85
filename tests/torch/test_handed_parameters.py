"""A parameter that a TorchScript module hands to a submodule is patched there in every run."""

from pathlib import Path

import pytest
import torch
from torch import nn

from support import KINDS, Saved, save

X = torch.ones(1, 3)


class Apply(nn.Module):
    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, w)


class Deep(nn.Module):
    """Passes the tensors that it was given on to a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Apply()

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return self.inner(x, w)


class Handing(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.w = nn.Parameter(torch.arange(6.0).view(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x, self.w) + 0


@pytest.mark.parametrize("inner", [Apply, Deep])
@pytest.mark.parametrize("kind", KINDS)
def test_a_handed_parameter_is_patched_in_every_run(tmp_path: Path, kind: str, inner: type) -> None:
    saved: Saved = save(Handing(inner()), (X,), tmp_path, kind)
    bare = saved.bare("--runs", "4").ok().outputs[0]
    for tree in (True, False):
        zeroed = saved.run("--runs", "4", patches=["w=zero"], tree=tree).ok()
        assert [run.tolist() for run in zeroed.outputs[0]] == [[[0.0, 0.0]]] * 4
        added = saved.run("--runs", "4", patches=["w=add:1"], tree=tree).ok()
        assert all(torch.equal(run, before + 3) for run, before in zip(added.outputs[0], bare))
