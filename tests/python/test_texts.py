"""No patch can keep or change a text in the graph; eager Python, TorchScript and the command give the same message."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import Patch, PatchableGraph, ProbePatch, ZeroPatch

X = torch.ones(2, 3)
WHY = "mode: is a str, which no patch can keep or change"
COMMAND = Path(__file__).resolve().parents[2] / "target" / "release" / "graphpatch"


class Inner(nn.Module):
    def forward(self, x: Tensor, mode: str) -> Tensor:
        return torch.relu(x) if mode == "relu" else x


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, "relu") + 1


class Around(nn.Module):
    """A root that calls what is scripted, or not."""

    def __init__(self, scripted: bool) -> None:
        super().__init__()
        self.outer = torch.jit.script(Outer()) if scripted else Outer()

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(x)


@pytest.mark.parametrize("scripted", [False, True])
@pytest.mark.parametrize("patch", [ZeroPatch(), ProbePatch()], ids=["zero", "probe"])
def test_a_text_is_shown_and_refused(scripted: bool, patch: Patch[Tensor], tmp_path: Path) -> None:
    pg = PatchableGraph(Around(scripted), X)
    assert "mode: str" in repr(pg.graph)
    with pytest.raises(KeyError, match=f"outer.inner.{WHY}"):
        pg.patch({"outer.inner.mode": patch})
    file = tmp_path / "graph.json"
    pg.save_graph(file)
    checked = subprocess.run(
        [COMMAND, "check", file, "--patch", "outer.inner.mode=zero"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 2 and f"outer.inner.{WHY}" in checked.stderr
