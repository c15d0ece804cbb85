"""Values with several readers, and modules and weights that a model uses in several places."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from support import Saved, same_bits

X = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.25, 4.0, -1.0, 2.0]])


class Echo(nn.Module):
    """Returns its own input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Sharing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.echo = Echo()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        echoed = self.echo(x)
        twice = self.first(self.first(x))
        scaled = x * 2.0
        return echoed + 1.0, x + 1.0, twice + self.second(x), scaled + scaled.sin()


@pytest.fixture(scope="module")
def module() -> Sharing:
    torch.manual_seed(0)
    return Sharing().eval()


def expected(module: Sharing, path: str) -> list[torch.Tensor]:
    with torch.no_grad():
        out = list(module(X))
        first, second = module.first, module.second
        zero = torch.zeros(4, 4)
        linear = nn.functional.linear
        if path == "echo.output":
            out[0] = torch.zeros(2, 4) + 1.0
        elif path == "second.weight":
            out[2] = first(first(X)) + linear(X, zero, second.bias)
        elif path == "first.weight":
            out[2] = first(linear(X, zero, first.bias)) + second(X)
        elif path == "first_1.weight":
            out[2] = linear(first(X), zero, first.bias) + second(X)
        elif path == "mul":
            out[3] = torch.zeros(2, 4) + torch.zeros(2, 4).sin()
        elif path == "x":
            out = list(module(torch.zeros(2, 4)))
        return out


@pytest.mark.parametrize("mode", ["--no-grad", "--grad"])
@pytest.mark.parametrize("path", ["echo.output", "second.weight", "first.weight", "first_1.weight", "mul", "x"])
def test_only_the_named_place_changes(exported: Callable[..., Saved], module: Sharing, path: str, mode: str) -> None:
    saved = exported("sharing", module, (X,), "scripted")
    result = saved.run(mode, "--runs", 3, patches=[f"{path}=zero"]).ok()
    for run in result.outputs[0]:
        assert same_bits(run, expected(module, path))
    state = module.state_dict()
    assert set(result.weights) == set(state)
    assert same_bits(result.weights, {name: state[name] for name in result.weights})
    assert same_bits(result.inputs, (X,))
