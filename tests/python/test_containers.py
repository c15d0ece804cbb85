"""Values in containers of other classes: what a patch does not change in them stays the same."""

from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from libgraphpatch import AddPatch, PatchableGraph, PatchError, ProbePatch, ZeroPatch


@dataclass
class Fields(ModelOutput):
    last: Tensor = None
    pooled: Tensor = None
    hidden: Tensor = None


class Asking(OrderedDict):
    """Its constructor needs an argument that the library cannot know."""

    def __init__(self, reason):
        super().__init__()
        self.reason = reason


def filled(value, keys, x):
    for number, key in enumerate(keys, 1):
        value[key] = x * number
    return value


def fields(x):
    value = Fields(last=x * 1)
    value["hidden"] = x * 2
    value["pooled"] = x * 3
    return value


def moved(x):
    value = filled(OrderedDict(), ("last", "hidden", "pooled"), x)
    value.move_to_end("last")
    return value


MADE = {
    "outputs of transformers, filled in another order": fields,
    "an OrderedDict with another order": moved,
    "a subclass with a constructor of its own": lambda x: filled(Asking("because"), ("last", "hidden"), x),
    "a defaultdict": lambda x: filled(defaultdict(list), ("last", "hidden"), x),
    "a Counter": lambda x: filled(Counter(), ("last", "hidden"), x),
}


class Model(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(x)


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_a_patched_dict_keeps_its_class_its_order_and_its_attributes(make):
    x = torch.ones(2)
    pg = PatchableGraph(Model(make), x)
    bare = pg(x)
    with pg.patch({"output|last": AddPatch(value=10.0)}):
        patched = pg(x)
    assert type(patched) is type(bare)
    assert list(patched) == list(bare)
    for key in bare:
        assert torch.equal(patched[key], bare[key] + (10.0 if key == "last" else 0.0)), key
    assert getattr(patched, "reason", None) == getattr(bare, "reason", None)
    assert getattr(patched, "default_factory", None) == getattr(bare, "default_factory", None)
    if isinstance(bare, ModelOutput):
        assert all(new is not None for new in patched.to_tuple())
        assert torch.equal(patched[1], bare[1])
        assert torch.equal(patched.last, bare.last + 10.0)


class Texts(nn.Module):
    def forward(self, x, kind):
        return x + 1 if kind == "full" else x - 1


@pytest.mark.parametrize("patch", [ProbePatch(), ZeroPatch()], ids=["probe", "zero"])
def test_a_patch_at_a_text_is_refused_before_a_run(patch):
    x = torch.ones(2)
    pg = PatchableGraph(Texts(), x, "full")
    with pytest.raises(KeyError, match="kind: is a str, which no patch can keep or change"):
        pg.patch({"kind": patch}).__enter__()
    assert torch.equal(pg(x, "full"), x + 1)


def test_a_text_where_other_runs_had_a_number_is_refused_in_the_run():
    x = torch.ones(2)
    pg = PatchableGraph(Texts(), x, 3)
    with (
        pytest.raises(PatchError, match="is a str, which no patch can keep or change"),
        pg.patch({"kind": ZeroPatch()}),
    ):
        pg(x, "full")
    assert torch.equal(pg(x, "full"), x + 1)
