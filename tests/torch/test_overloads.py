"""A module whose `forward` is overloaded, as that of nn.LSTM is, is a scope in TorchScript as every other module."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from support import Saved, same_bits


class Recurrent(nn.Module):
    """The class of its cells is a parameter; their methods are called forward__0 in TorchScript."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.cells = kind(4, 5, num_layers=2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.cells(x)[0])


@pytest.fixture(params=[nn.LSTM, nn.GRU], ids=lambda kind: kind.__name__)
def recurrent(request: pytest.FixtureRequest, exported: Callable[..., Saved]) -> tuple[Recurrent, Tensor, Saved]:
    torch.manual_seed(0)
    model, x = Recurrent(request.param).eval(), torch.randn(3, 2, 4)
    return model, x, exported(request.param.__name__, model, (x,))


def test_it_has_a_scope(recurrent: tuple[Recurrent, Tensor, Saved]) -> None:
    model, x, saved = recurrent
    done = saved.run("--runs", 3).ok()
    name = type(model.cells).__name__.lower()
    tree = done.tree
    assert (
        tree.startswith("<root>: Graph(4)\n├─x: Tensor(3, 2, 4)\n├─cells: Graph(") and "├─tanh: Tensor(3, 2, 5)" in tree
    )
    assert "│ ├─input: Tensor(3, 2, 4)\n" in tree and f"│ ├─{name}: tuple(" in tree, tree
    assert same_bits(done.outputs, saved.bare("--runs", 3).ok().outputs)


def test_what_it_returns_is_patched(recurrent: tuple[Recurrent, Tensor, Saved]) -> None:
    model, x, saved = recurrent
    with torch.no_grad():  # as the program, since libtorch takes another kernel where there are gradients
        output = model.cells(x)[0]
    output[1] = 0.5
    name = type(model.cells).__name__.lower()
    for path in ("cells.output|sub_0", f"cells.{name}|sub_0"):
        patched = saved.run("--runs", 3, patches=[f"{path}[1]=replace:0.5"]).ok()
        assert same_bits(patched.outputs[0], [torch.tanh(output)] * 3), path
