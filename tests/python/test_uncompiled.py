"""A note names a function that torch.compile gives up as a whole: what it calls itself is not seen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import PatchableGraph


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.LSTM(4, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.cells(x)[0]))


class Looping(nn.Module):
    """A graph break inside a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            torch._dynamo.graph_break()
            x = torch.tanh(self.step(x))
        return x


class Whole(nn.Module):
    """It is compiled as one graph, and so are its operations seen."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.step(x))


def compiled(model: nn.Module) -> PatchableGraph:
    torch._dynamo.reset()
    return PatchableGraph(torch.compile(model.eval(), backend="eager"), torch.randn(3, 2, 4))


@pytest.mark.parametrize("kind", [Recurrent, Looping])
def test_a_note_says_where_operations_are_not_seen(kind: type[nn.Module]) -> None:
    pg = compiled(kind())
    assert pg.graph.get("tanh") is None
    told = [text for text in pg.notes if "torch.compile does not compile it" in text]
    assert len(told) == 1 and "forward" in told[0] and "\n" not in told[0], pg.notes
    assert pg.graph.get("head.linear" if kind is Recurrent else "step.linear") is not None


def test_there_is_no_note_where_they_are() -> None:
    pg = compiled(Whole())
    assert pg.graph.get("tanh") is not None and not pg.notes
