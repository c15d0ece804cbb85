"""A patch of an output must not change it for others that hold it, on every version of Python."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import PatchableGraph, ZeroPatch

X = torch.tensor([[1.0, -2.0, 3.0]])
KEPT: list[Any] = []


class Keeps(nn.Module):
    """A module whose output is also held elsewhere, in one of several ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        if self.how == "attribute":
            self.kept = y
        elif self.how == "list":
            KEPT.append(y)
        elif self.how == "view":
            KEPT.append(y[..., :2])
        elif self.how == "storage":
            KEPT.append(y.untyped_storage())
        elif self.how == "alias":
            KEPT.append(y.detach())
        elif self.how == "function":
            KEPT.append(lambda: y)
        return y

    def others(self) -> list[float]:
        if self.how == "attribute":
            return self.kept.flatten().tolist()
        (held,) = KEPT
        if self.how == "function":
            return held().flatten().tolist()
        if self.how == "storage":
            return torch.empty(0).set_(held).tolist()
        return held.flatten().tolist()


@pytest.mark.parametrize("below", [False, True], ids=["root", "below the root"])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("how", ["attribute", "list", "view", "storage", "alias", "function"])
def test_an_output_that_somebody_holds(how: str, grad: bool, below: bool) -> None:
    keeps = Keeps(how)
    module: nn.Module = nn.Sequential(keeps) if below else keeps
    path = "sub_0.output" if below else "output"
    with torch.set_grad_enabled(grad):
        KEPT.clear()
        pg = PatchableGraph(module, X)
        for _ in range(30):  # often enough that the interpreter specializes the code
            KEPT.clear()
            with pg.patch({path: ZeroPatch()}):
                assert not pg(X).any()
            assert keeps.others() == [2.0, -4.0, 6.0][: 2 if how == "view" else 3]


@pytest.mark.parametrize("grad", [False, True])
def test_an_input_that_is_the_output(grad: bool) -> None:
    module = nn.Sequential(nn.Identity(), nn.ReLU())
    x = X.clone()
    with torch.set_grad_enabled(grad):
        pg = PatchableGraph(module, x)
        for _ in range(30):
            with pg.patch({"sub_0.output": ZeroPatch()}):
                assert not pg(x).any()
            assert torch.equal(x, X)
