"""The model of reported_calls.py: its tree, and what it computes with one value changed."""

from collections.abc import Callable
from typing import Any

import torch

LINEAR = """{0}: Graph(5)
{1}├─input: Tensor(3, 4)
{1}├─weight: Tensor(4, 4)
{1}├─bias: Tensor(4)
{1}├─linear: Tensor(3, 4)
{1}└─output: Tensor(3, 4)
"""
TREE = f"""<root>: Graph(5)
├─x: Tensor(3, 4)
├─{LINEAR.format("first", "│ ")}├─script: Graph(5)
│ ├─input: Tensor(3, 4)
│ ├─{LINEAR.format("fc", "│ │ ")}│ ├─relu: Tensor(3, 4)
│ ├─add: Tensor(3, 4)
│ └─output: Tensor(3, 4)
├─{LINEAR.format("last", "│ ")}└─output: dict(6)
  ├─y: Tensor(3, 4)
  ├─parts: list(2)
  │ ├─sub_0: Tensor(3, 4)
  │ └─sub_1: int
  ├─flag: bool
  ├─name: str
  ├─none: NoneType
  └─scale: float
"""


def make_model() -> Any:
    """A module that calls an eager one and a scripted one; its output has every kind of container."""

    class Inner(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(4, 4)

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.fc(input)) + 1

    class Outer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(4, 4)
            self.script = torch.jit.script(Inner())
            self.last = torch.nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            y = self.script(self.first(x))
            return {"y": self.last(y), "parts": [y, 2], "flag": True, "name": "größe", "none": None, "scale": 0.5}

    torch.manual_seed(0)
    return Outer().eval()


def computed(model: Any, x: Any, patched: str = "", change: Callable[[Any], Any] = lambda value: value) -> Any:
    """The model in plain torch, with the value at one path changed."""

    def at(path: str, value: Any) -> Any:
        return change(value) if path == patched else value

    linear, inner, first, last = torch.nn.functional.linear, model.script.fc, model.first, model.last
    t = at("first.input", at("x", x))
    t = at("first.output", at("first.linear", linear(t, at("first.weight", first.weight), first.bias)))
    s = at("script.fc.input", at("script.input", t))
    s = at("script.fc.output", at("script.fc.linear", linear(s, at("script.fc.weight", inner.weight), inner.bias)))
    s = at("script.output", at("script.add", at("script.relu", torch.relu(s)) + 1))
    y = at("last.output", linear(s, last.weight, at("last.bias", last.bias)))
    return {
        "y": at("output|y", y),
        "parts": [at("output|parts.sub_0", s), at("output|parts.sub_1", 2)],
        "flag": at("output|flag", True),
        "name": "größe",
        "none": None,
        "scale": at("output|scale", 0.5),
    }


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else type(a) is type(b) and a == b
