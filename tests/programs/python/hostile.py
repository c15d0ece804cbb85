"""Modules and values that are hard to inspect. Prints the result of each model."""

import sys

import torch
from torch import nn


class Raising(nn.Module):
    """For a missing attribute, raises an error that is no AttributeError."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def __getattr__(self, name):
        if name in self.__dict__.get("_modules", {}):
            return self._modules[name]
        raise RuntimeError("no " + name)

    def forward(self, x):
        return self.linear(x)


class Picky(tuple):
    def __new__(cls, x, *, must):
        return super().__new__(cls, (x,))


class Output(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(x)


class Unhashable(nn.Module):
    __hash__ = None

    def __init__(self):
        super().__init__()
        self.inner = nn.ReLU()

    def __eq__(self, other):
        raise RuntimeError("no comparison")

    def forward(self, x):
        return self.inner(x) + 1


class Walks(nn.Module):
    """Raises an error when somebody iterates over its modules."""

    def __init__(self):
        super().__init__()
        self.inner = nn.ReLU()

    def named_modules(self, *args, **kwargs):
        raise RuntimeError("no walking")

    def modules(self):
        raise RuntimeError("no walking")

    def forward(self, x):
        return self.inner(x) + 1


class Odd:
    def __len__(self):
        raise RuntimeError("no length")

    def __iter__(self):
        raise RuntimeError("no iteration")

    def __eq__(self, other):
        raise RuntimeError("no comparison")

    def __str__(self):
        raise RuntimeError("no text")


class OddDict(dict):
    def __iter__(self):
        raise RuntimeError("no iteration")


class Takes(nn.Module):
    def forward(self, x, thing):
        return x * 2


class Properties(nn.Module):
    original_name = property(lambda self: 1 / 0)
    _orig_mod = property(lambda self: 1 / 0)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return x * self.weight


def first(value):
    while not isinstance(value, torch.Tensor):
        value = value[next(iter(value))] if isinstance(value, dict) else value[0]
    return value


torch.manual_seed(0)
x = torch.ones(1, 2)
MODELS = {
    "raising": (Raising(), ()),
    "unhashable": (Unhashable(), ()),
    "walks": (Walks(), ()),
    "properties": (Properties(), ()),
    "all of them": (nn.Sequential(Unhashable(), Properties(), Raising(), Walks()), ()),
    "keys": (Output(lambda x: {"a\0b": x + 1, "\ud800": x + 2}), ()),
    "keys that are no text": (Output(lambda x: {("t",): x, None: 3}), ()),
    "constructor": (Output(lambda x: Picky(x + 1, must=1)), ()),
    "odd argument": (Takes(), (Odd(),)),
    "odd dict": (Takes(), (OddDict(a=x),)),
}
for name, (model, more) in MODELS.items():
    if len(sys.argv) == 1 or name in sys.argv[1:]:
        print(name, first(model(x, *more)).tolist())
