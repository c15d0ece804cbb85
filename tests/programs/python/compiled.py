"""Prints the results of a model that inductor has compiled and of a compiled function around it, bit for bit. The
graphs use random numbers and write into a buffer."""

import torch
from torch import Tensor, nn

from model import bits


class Net(nn.Module):
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(24, 48), nn.GELU(), nn.LayerNorm(48), nn.Linear(48, 24))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return (self.layers(x).softmax(-1) @ x.mT).tanh() * self.seen


torch.manual_seed(0)
net, x = Net(), torch.randn(16, 24)
compiled = torch.compile(net)
around = torch.compile(lambda x: nn.functional.dropout(net(x).exp(), 0.5).sum(0))
with torch.no_grad():
    for _ in range(3):
        print(bits(compiled(x)), bits(around(x)), net.seen.item())
print(bits(torch.rand(4)))
