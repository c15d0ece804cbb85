"""Parameters and buffers that are replaced while the model runs: another tensor, at whatever address, is never taken
for one of them, and what is left of them is what it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, PatchableGraph, ReplacePatch, ZeroPatch
from libgraphpatch.errors import PathError

X = torch.tensor([[1.0, -2.0, 3.0]])


class Counting(nn.Module):
    """Replaces a buffer by a new tensor; the memory and the address of the old one are free then."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(1, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        self.steps = self.steps + 1
        many = [torch.relu(x + index) for index in range(20)]
        return (*many, self.steps * 1)


@pytest.mark.parametrize("grad", [True, False])
def test_a_buffer_that_is_replaced(grad: bool) -> None:
    net = Counting()
    pg = PatchableGraph(net, X)
    expected = [torch.relu(X + index) for index in range(20)]
    with torch.set_grad_enabled(grad):
        for run in range(3):
            net.steps = torch.full((1, 3), 5.0)
            with pg.patch({"steps": ZeroPatch()}):
                *many, steps = pg(X)
            assert all(map(torch.equal, many, expected)), run
            assert torch.equal(steps, torch.ones(1, 3))
            assert torch.equal(net.steps, torch.ones(1, 3))


class Replacing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.linear.weight = nn.Parameter(torch.ones(3, 3))
        return torch.relu(x), self.linear(x)


def test_a_parameter_that_is_new_in_every_run_is_no_path() -> None:
    net = Replacing()
    pg = PatchableGraph(net, X)
    with pytest.raises(PathError, match="linear.weight"):
        pg.patch({"linear.weight": ZeroPatch()})
    for _ in range(3):
        with pg.patch({"linear.bias": ReplacePatch(value=7.0)}):
            rectified, out = pg(X)
        assert torch.equal(rectified, torch.relu(X)) and torch.equal(out, torch.full((1, 3), 9.0))


def swap_data(module: nn.Module) -> None:
    """Adds hooks that give the parameters other memory while the module runs, as offloading does."""

    def before(module: nn.Module, _args: Any) -> None:
        module.kept = [parameter.data for parameter in module.parameters()]
        for parameter in module.parameters():
            parameter.data = parameter.data.clone()

    def after(module: nn.Module, _args: Any, _output: Any) -> None:
        for parameter, kept in zip(module.parameters(), module.kept, strict=True):
            parameter.data = kept
        del module.kept

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after)


def swap_parameters(module: nn.Module) -> None:
    """Adds hooks that replace the parameters by new ones while the module runs."""

    def before(module: nn.Module, _args: Any) -> None:
        vars(module)["kept"] = dict(module._parameters)
        for name, parameter in list(module._parameters.items()):
            module._parameters[name] = nn.Parameter(parameter.detach().clone())

    def after(module: nn.Module, _args: Any, _output: Any) -> None:
        module._parameters.update(vars(module).pop("kept"))

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after)


@pytest.mark.parametrize("swap", [swap_data, swap_parameters])
def test_offloaded_parameters(swap: Any) -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    for layer in net:
        swap(layer)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    bare, bias = net(X), net[0].bias
    pg = PatchableGraph(net, X)
    expected = net[2](net[1](net[0](X) + 1))
    for _ in range(2):
        with pg.patch({"sub_0.bias": AddPatch(value=1.0)}, on_missing="raise"):
            assert torch.allclose(pg(X), expected)
    assert torch.equal(net(X), bare) and net[0].bias is bias
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
