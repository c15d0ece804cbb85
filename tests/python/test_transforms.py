"""Compiling, tracing, scripting and exporting refuse a PatchableGraph, but accept its module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.exc import InternalTorchDynamoError

from libgraphpatch import GraphPatchError, PatchableGraph, ZeroPatch

X = torch.ones(2, 3)
WAYS: dict[str, Callable[[Any], Any]] = {
    "compile": lambda model: torch.compile(model, backend="eager")(X),
    "compile a caller": lambda model: torch.compile(lambda x: model(x) + 1, backend="eager")(X),
    "trace": lambda model: torch.jit.trace(model, (X,)),
    "script": torch.jit.script,
    "export": lambda model: torch.export.export(model, (X,)),
    "symbolic trace": torch.fx.symbolic_trace,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("patched", [False, True])
def test_a_patchable_graph_is_refused(way: str, patched: bool) -> None:
    torch._dynamo.reset()
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    bare = net(X)
    pg = PatchableGraph(net, X)
    with pg.patch({"output": ZeroPatch()} if patched else {}, on_missing="ignore"):
        # torch.compile turns an error inside of it into one of its own class, with our message.
        with pytest.raises(
            (GraphPatchError, InternalTorchDynamoError),
            match=r"a PatchableGraph of Sequential cannot be given to .*pg\.module",
        ):
            WAYS[way](pg)
    WAYS[way](pg.module)
    assert torch.equal(pg(X), bare)
    with pg.patch({"output": ZeroPatch()}):
        assert not pg(X).any()
