"""The models of these scripts, and a function that prints every bit of a result."""

import torch


class TupleOutputModule(torch.nn.Module):
    """One Linear called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 3)

    def forward(self, x: torch.Tensor):
        return self.linear(x), self.linear(x + 1)


class Pair(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


def pair() -> Pair:
    torch.manual_seed(0)
    return Pair().eval()


def bits(value) -> str:
    if isinstance(value, torch.Tensor):
        return value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes().hex()
    return ",".join(map(bits, value))
