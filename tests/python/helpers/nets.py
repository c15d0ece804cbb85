"""Small models that several tests patch, and what they compare."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def name_of(case: Any) -> str:
    """A test case's name, the same in every process: without addresses of objects."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(case))


def names(scope: Any) -> list[str]:
    """The names of the nodes in a scope of the graph."""
    return [str(node).rsplit(".", 1)[-1] for node in scope]


def define(library: Any, schema: str, function: Any) -> None:
    """Defines an operator of torch.library."""
    library.define(schema)
    library.impl(schema.split("(")[0].split(".")[0], function, "CompositeExplicitAutograd")


class TupleOutputModule(nn.Module):
    """One Linear called twice, with a tuple as output."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.linear(x), self.linear(x + 1)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 6)
        self.down = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.sigmoid(self.up(x)) * 2
        return x + self.down(hidden)


class Net(nn.Module):
    """Two blocks. With `reentrant` True or False they are checkpointed in that way; with None they are not."""

    def __init__(self, reentrant: bool | None = None, nested: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.reentrant, self.nested = reentrant, nested

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x) if self.reentrant is None else self._checkpointed(block, x)
        return x

    def _checkpointed(self, block: nn.Module, x: Tensor) -> Tensor:
        def inner(x: Tensor) -> Tensor:
            return checkpoint(block, x, use_reentrant=self.reentrant)

        return checkpoint(inner, x, use_reentrant=self.reentrant) if self.nested else inner(x)


class Around(nn.Module):
    """Calls a given module, and nothing else."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return self.inner(x)


class Part(nn.Module):
    """A linear layer and its tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x))


class Calls(nn.Module):
    """Calls a given module between operations of its own."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + 1) * 3


class Function(nn.Module):
    """A module whose forward is a given function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def same(a: Any, b: Any) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
