"""Models that ask whether two values are one object: where a patch changes no bit, each stays what it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph, ZeroPatch
from nets import Function

X = torch.linspace(-2, 2, 24).reshape(1, 4, 6)


class Attention(nn.Module):
    """nn.MultiheadAttention projects at once what it gets as one object, and rounds otherwise where it gets three."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


@pytest.mark.parametrize("names", [["query"], ["key"], ["value"], ["query", "key", "value"]])
@torch.no_grad()
def test_attention_keeps_its_bits(names: list[str]) -> None:
    model = Attention().eval()
    pg, bare = PatchableGraph(model, X), model(X)
    with pg.patch({f"attention.{name}": AddPatch(value=-0.0) for name in names}, on_missing="raise"):
        assert torch.equal(pg(X), bare)
    # A patch that changes something acts, and only on the one.
    changed = {name: (X + 1 if name in names else X) for name in ["query", "key", "value"]}
    with pg.patch({f"attention.{name}": AddPatch(value=1.0) for name in names}, on_missing="raise"):
        assert torch.allclose(pg(X), model.attention(**changed)[0], atol=1e-6)


@torch.no_grad()
def test_what_an_operation_hands_back_stays_one_object() -> None:
    same: list[bool] = []

    def forward(x: Tensor) -> Tensor:
        y = torch.dropout(x, 0.5, False)
        same.append(y is x)
        return y + 1

    pg = PatchableGraph(Function(forward), X)
    del same[:]
    with pg.patch({"dropout": AddPatch(value=-0.0)}):
        assert torch.equal(pg(X), X + 1)
    with pg.patch({"dropout": ZeroPatch()}):
        assert torch.equal(pg(X), torch.ones_like(X))
    assert same == [True, False]


@torch.no_grad()
def test_a_buffer_that_the_patch_leaves_alone_at_first_is_patched_when_it_was_written() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            before = x + self.count
            self.count.add_(1)
            return before + self.count

    model, x = Counts(), torch.ones(3)
    pg = PatchableGraph(model, x)
    model.count.zero_()
    with pg.patch({"count": ZeroPatch()}, on_missing="raise"):
        assert torch.equal(pg(x), x)
    assert torch.equal(model.count, torch.ones(3))
