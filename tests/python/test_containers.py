"""Values in containers of other classes: what a patch does not change in them stays the same."""

from collections import Counter, OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass
from enum import Enum, IntEnum

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


class NamedTuple(namedtuple("Base", "left right")):
    def __new__(cls, left):
        return super().__new__(cls, left, left * 2)


class ReasonedTuple(tuple):
    def __new__(cls, elements, reason):
        made = super().__new__(cls, elements)
        made.reason = reason
        return made


class SlottedList(list):
    __slots__ = ("reason",)

    def __init__(self, elements, reason):
        super().__init__(elements)
        self.reason = reason


class NewList(list):
    def __new__(cls, elements, reason):
        return super().__new__(cls)

    def __init__(self, elements, reason):
        super().__init__(elements)
        self.reason = reason


class ClosedList(list):
    """Cannot be copied or set, and shows something else than it holds."""

    def __setitem__(self, index, value):
        raise TypeError("closed")

    def __copy__(self):
        raise TypeError("closed")

    def __len__(self):
        return 3

    def __iter__(self):
        return iter((1, 2, 3))


class NewDict(dict):
    __slots__ = ("reason",)

    def __new__(cls, *, reason):
        return super().__new__(cls)

    def __init__(self, *, reason):
        self.reason = reason


class ClosedDict(dict):
    def __setitem__(self, key, value):
        raise TypeError("closed")


class DoubledDict(dict):
    def __getitem__(self, key):
        return dict.__getitem__(self, key) * 2


def filled_by_dict(value, x):
    dict.update(value, {"first": x * 1, "second": x * 2})
    return value


# Each makes a container of two tensors, of which the first one is patched at this element.
CLASSES = {
    "named tuple": (NamedTuple, "sub_0"),
    "tuple": (lambda x: ReasonedTuple([x * 1, x * 2], "because"), "sub_0"),
    "slotted list": (lambda x: SlottedList([x * 1, x * 2], "because"), "sub_0"),
    "list with arguments": (lambda x: NewList([x * 1, x * 2], "because"), "sub_0"),
    "closed list": (lambda x: ClosedList([x * 1, x * 2]), "sub_0"),
    "dict with arguments": (lambda x: filled_by_dict(NewDict(reason="because"), x), "first"),
    "closed dict": (lambda x: filled_by_dict(ClosedDict(), x), "first"),
    "doubled dict": (lambda x: filled_by_dict(DoubledDict(), x), "first"),
    "NUL": (lambda x: {"a\0b": x * 1, "c": x * 2}, "a b"),
    "lone surrogate": (lambda x: {"a\ud800": x * 1, "c": x * 2}, "a?"),
}


def stored(value):
    kind = next(kind for kind in (tuple, list, dict) if isinstance(value, kind))
    return list(dict.values(value) if kind is dict else kind.__iter__(value))


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("inside", [False, True], ids=["output", "input"])
def test_a_container_of_any_class_is_patched(name, inside):
    make, element = CLASSES[name]
    x = torch.ones(2)

    class Hands(nn.Module):
        def __init__(self):
            super().__init__()
            self.identity = nn.Identity()

        def forward(self, x):
            return self.identity(make(x))

    pg = PatchableGraph(Hands(), x)
    bare = make(x)
    path = f"identity.input|{element}" if inside else f"output|{element}"
    with pg.patch({path: AddPatch(value=10.0)}, on_missing="raise"):
        patched = pg(x)
    assert type(patched) is type(bare) and getattr(patched, "reason", None) == getattr(bare, "reason", None)
    assert [value.tolist() for value in stored(patched)] == [[11.0, 11.0], [2.0, 2.0]]
    if isinstance(bare, dict):
        assert list(dict.keys(patched)) == list(dict.keys(bare))


@pytest.mark.parametrize("keys", [("a\0", "a "), ("\ud800", "\udfff"), (1, "1")])
def test_keys_that_look_the_same_are_not_looked_into(keys):
    x = torch.ones(2)
    pg = PatchableGraph(Model(lambda x: dict(zip(keys, (x * 1, x * 2), strict=True))), x)
    with pytest.raises(KeyError, match="output: is a dict"):
        pg.patch({"output": ZeroPatch()}).__enter__()
    assert list(pg(x)) == list(keys)


class Color(Enum):
    RED = 1


class Number(IntEnum):
    ONE = 1


NAMES = {
    "('user', 'to', 1)": ("user", "to", 1),
    "('a',)": ("a",),
    "((None, 2), ())": ((None, 2), ()),
    "None": None,
    "True": True,
    "1\\.5": 1.5,
    "b'a'": b"a",
    "Color\\.RED": Color.RED,
    "Number\\.ONE": Number.ONE,
    "torch\\.float32": torch.float32,
    "''": "",
}


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name, key", NAMES.items(), ids=NAMES)
def test_keys_that_are_no_texts_have_the_names_that_python_writes(name, key, inside):
    class Hands(nn.Module):
        def __init__(self):
            super().__init__()
            self.identity = nn.Identity()

        def forward(self, x):
            return self.identity({key: x * 1, "last": x * 2})

    x = torch.ones(2)
    pg = PatchableGraph(Hands(), x)
    with pg.patch({f"{'identity.input' if inside else 'output'}|{name}": AddPatch(value=10.0)}, on_missing="raise"):
        patched = pg(x)
    assert list(patched) == [key, "last"] and type(next(iter(patched))) is type(key)
    assert [value.tolist() for value in patched.values()] == [[11.0, 11.0], [2.0, 2.0]]


@pytest.mark.parametrize(
    "keys, why",
    [
        ((object(), 1), "keys without names"),
        ((frozenset([1]), 1), "keys without names"),
        ((("a", object()), 1), "keys without names"),
        ((None, "None"), "keys that look the same"),
        (("", "''"), "keys that look the same"),
    ],
    ids=["object", "frozenset", "tuple", "None", "empty"],
)
def test_a_dict_that_is_not_looked_into_says_why(keys, why):
    x = torch.ones(2)
    pg = PatchableGraph(Model(lambda x: dict(zip(keys, (x * 1, x * 2), strict=True))), x)
    assert f"output: dict ({why})" in repr(pg.graph)
    with pytest.raises(KeyError, match=rf"output: is a dict \({why}\)"):
        pg.patch({"output": ZeroPatch()}).__enter__()
    assert list(pg(x)) == list(keys)


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
