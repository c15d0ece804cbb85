"""Exports a model, saves the exported program, loads it, and runs it."""

import io

import torch
from torch import Tensor, nn


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x)))


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Mlp(), Mlp()])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


torch.manual_seed(0)
file = io.BytesIO()
x = torch.randn(2, 4)
torch.export.save(torch.export.export(Decoder().eval(), (x,)), file)
file.seek(0)
program = torch.export.load(file).module()
with torch.no_grad():
    for number in range(3):
        print(number, program(x + number).double().sum().item())
