"""A patch that cannot be applied has the same message at run time as in a check of its path. Notes of scripted modules
below a root reach the PatchableGraph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import PatchableGraph, PatchError, ZeroPatch
from libgraphpatch.errors import PathError
from nets import Around

X = torch.ones(2, 3)


class Gives(nn.Module):
    """Returns a value of the chosen kind."""

    def __init__(self) -> None:
        super().__init__()
        self.kind = "tensor"

    def forward(self, x: Tensor) -> Any:
        return {
            "tensor": x + 1,
            "tuple": (x + 1, x),
            "list": [x],
            "dict": {"left": x, "right": x},
            "object": slice(0, 1),
        }[self.kind]


@pytest.mark.parametrize(
    "kind, said",
    [
        ("tuple", "is a tuple(2), not one value: choose an element after `|`"),
        ("list", "is a list(1), not one value: choose an element after `|`"),
        ("dict", "is a dict(2), not one value: choose an element after `|`"),
        ("object", "is a foreign object, not a tensor or plain value"),
    ],
)
def test_a_value_of_another_kind_than_was_recorded(kind: str, said: str) -> None:
    net = Gives()
    net.kind = kind
    seen = PatchableGraph(net, X)
    if kind != "object":
        with pytest.raises(PathError) as checked:
            seen.patch({"output": ZeroPatch()})
        assert said in str(checked.value)
    net.kind = "tensor"
    pg = PatchableGraph(net, X)
    net.kind = kind
    with pg.patch({"output": ZeroPatch()}):
        with pytest.raises(PatchError) as refused:
            pg(X)
    assert said in str(refused.value)


def test_notes_of_a_scripted_module_reach_every_graph() -> None:
    frozen = torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Linear(3, 3), nn.ReLU()).eval()))
    for _ in range(2):
        pg = PatchableGraph(Around(frozen), X)
        assert any("frozen" in note for note in pg.notes), pg.notes
