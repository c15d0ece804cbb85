"""Values that have several names. Also checks that the tests that docs/sharing.md names exist."""

from __future__ import annotations

import ast
import re

import torch
from torch import Tensor, nn

from conftest import ROOT
from libgraphpatch import PatchableGraph, ZeroPatch

DOCUMENT = ROOT / "docs" / "sharing.md"


class Tied(nn.Module):
    """Its embedding and its head have one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.embed(ids)
        return hidden, self.head(hidden + 1)


def test_a_tied_weight_is_patched_in_the_scope_that_the_path_names() -> None:
    model, ids = Tied(), torch.tensor([1, 3])
    pg = PatchableGraph(model, ids)
    weight = model.head.weight.detach().clone()
    with torch.no_grad(), pg.patch({"head.weight": ZeroPatch()}, on_missing="raise"):
        hidden, logits = pg(ids)
    assert torch.equal(hidden, weight[ids])
    assert torch.equal(logits, torch.zeros(2, 5))
    with torch.no_grad(), pg.patch({"embed.weight": ZeroPatch()}, on_missing="raise"):
        hidden, logits = pg(ids)
    assert torch.equal(hidden, torch.zeros(2, 3))
    assert torch.equal(logits, torch.nn.functional.linear(torch.ones(2, 3), weight))
    assert torch.equal(model.head.weight, weight)
    assert model.head.weight is model.embed.weight


class Twice(nn.Module):
    """Returns one tensor at two places, and keeps it."""

    held: Tensor

    def forward(self, x: Tensor) -> dict[str, object]:
        self.held = x * 2
        return {"first": self.held, "more": [self.held, (self.held,)]}


def test_a_tensor_at_two_places_of_a_container_is_patched_at_one() -> None:
    model, x = Twice(), torch.ones(3)
    pg = PatchableGraph(model, x)
    for path, zeroed in (("output|first", 0), ("output|more.sub_0", 1), ("output|more.sub_1.sub_0", 2)):
        with pg.patch({path: ZeroPatch()}, on_missing="raise"):
            output = pg(x)
        places = [output["first"], output["more"][0], output["more"][1][0]]
        expected = [torch.zeros(3) if place == zeroed else x * 2 for place in range(3)]
        assert all(torch.equal(a, b) for a, b in zip(places, expected, strict=True)), path
        assert torch.equal(model.held, x * 2)


def test_the_tests_that_the_document_names_are_there() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    files = set(re.findall(r"`(tests/[\w/]+\.\w+)", text))
    assert len(files) >= 8
    assert not [file for file in files if not (ROOT / file).is_file()]
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) >= 8
    missing = [f"{file}::{name}" for file, name in named if name not in functions(file)]
    assert not missing, missing


def functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
