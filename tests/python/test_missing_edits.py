"""Patches without a block that no run has reached are reported when their graph is freed or the process ends."""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

from libgraphpatch import MissingPatchWarning, PatchableGraph, PatchError, ZeroPatch

X = torch.ones(2, 4)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(4, 4)
        self.extra = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, more: bool = False) -> torch.Tensor:
        x = self.used(x)
        return self.extra(x) if more else x


def graph() -> PatchableGraph:
    pg = PatchableGraph(Net(), X)
    pg.record(X, more=True)
    return pg


def test_when_the_graph_goes() -> None:
    pg = graph()
    edit = pg.edit({"extra.output": ZeroPatch(), "used.output": ZeroPatch()})
    pg(X)
    with pytest.warns(MissingPatchWarning, match=r"a patch never matched: extra\.output") as told:
        del pg
        gc.collect()
    assert len(told) == 1 and edit.is_open


def test_when_it_is_closed_and_not_again() -> None:
    pg = graph()
    edit = pg.edit({"extra.output": ZeroPatch()})
    pg(X)
    with pytest.warns(MissingPatchWarning, match=r"extra\.output"):
        edit.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        edit.close()
        del pg
        gc.collect()


def test_one_that_matched_or_that_nobody_asks_for_says_nothing() -> None:
    pg = graph()
    edits = [pg.edit({"used.output": ZeroPatch()}), pg.edit({"extra.output": ZeroPatch()}, on_missing="ignore")]
    pg(X)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        del pg
        gc.collect()
    assert not told and all(edit.is_open for edit in edits)


def test_an_edit_that_shall_raise_is_closed_before_it_does() -> None:
    pg = graph()
    edit = pg.edit({"extra.output": ZeroPatch()}, on_missing="raise")
    with pytest.raises(PatchError, match=r"extra\.output"):
        edit.close()
    assert not edit.is_open and pg(X).any()


PROGRAM = """
import torch
from torch import nn
from libgraphpatch import *
net = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
pg = PatchableGraph(net, torch.ones(2, 4))
pg.edit({"sub_0.output": ZeroPatch()})
"""


@pytest.mark.parametrize("run, told", [("", 1), ("pg(torch.ones(2, 4))", 0)], ids=["no run", "a run"])
def test_at_the_end_of_the_process(run: str, told: int) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM + run], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("MissingPatchWarning: a patch never matched: sub_0.output") == told, done.stderr
    assert told or not done.stderr
