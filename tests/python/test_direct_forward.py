"""A module's ``forward`` that is called directly: what it does is patched where it is listed, and a note says where that is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph

X = torch.tensor([[1.0, -2.0, 3.0]])
NOTE = "calls the `forward` of another module"


class Direct(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sub = nn.Linear(3, 3)
        self.layers = nn.ModuleList([nn.Linear(3, 3)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer.forward(x)
        return self.sub.forward(x) * 2


class Handed(Direct):
    """Hands the function to somebody who calls it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.apply_to(self.sub.forward, x)

    @staticmethod
    def apply_to(function: object, x: Tensor) -> Tensor:
        assert callable(function)
        return torch.relu(function(x))


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sub = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.sub(x)


class Same(Base):
    """All of these are its own ``forward``."""

    def forward(self, x: Tensor, again: bool = True) -> Tensor:
        x = super().forward(x) + Base.forward(self, x)
        return self.forward(x, False) if again else x


@pytest.mark.parametrize("kind", [Direct, Handed])
def test_it_is_told_of(kind: type[nn.Module]) -> None:
    pg = PatchableGraph(kind(), X)
    assert [note for note in pg.notes if NOTE in note and f"{kind.__name__}.forward" in note]


def test_what_it_does_is_patched_where_it_is_listed() -> None:
    net = Direct()
    pg = PatchableGraph(net, X)
    expected = net.sub(net.layers[0](X) + 1) * 2
    with pg.patch({"linear": AddPatch(value=1.0)}, on_missing="raise"):
        assert torch.equal(pg(X), expected)
    with pytest.raises(KeyError, match="sub"):
        pg.patch({"sub.output": AddPatch(value=1.0)})


class Wrapping(Base):
    """Puts another function in the place of a module's for a while: a call of the module comes by it."""

    def forward(self, x: Tensor) -> Tensor:
        before = self.sub.forward
        self.sub.forward = lambda value: before(value) + 1  # type: ignore[method-assign]
        try:
            return self.sub(x)
        finally:
            self.sub.forward = before  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "module", [Same(), Base(), Wrapping(), nn.Sequential(nn.Linear(3, 3)), nn.TransformerEncoderLayer(3, 1, 4)]
)
def test_calls_of_a_modules_own_forward_are_none(module: nn.Module) -> None:
    assert not [note for note in PatchableGraph(module, X).notes if NOTE in note]
