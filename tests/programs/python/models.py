"""Several models: of one class, at the same time and after one another; one that trains with checkpointing; a scripted one."""

import gc
import sys

import torch
from torch.utils.checkpoint import checkpoint

from model import Pair, bits, pair


class Checkpointed(torch.nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant, self.pair, self.head = reentrant, Pair(), torch.nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(checkpoint(self.pair, x, use_reentrant=self.reentrant))


def train(model: torch.nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(2, 4, requires_grad=True)).sum().backward()
        optimizer.step()
    print(bits(list(model.parameters())))


torch.manual_seed(0)
x = torch.ones(2, 4)
if sys.argv[1] == "several":
    first, second = pair(), pair()
    print(bits([first(x), second(x), first(x), torch.nn.ReLU()(x)]))
elif sys.argv[1] == "after":
    for _ in range(3):
        pair()(x)
        gc.collect()
elif sys.argv[1] == "checkpoint":
    train(Checkpointed(False))
    train(Checkpointed(True))
elif sys.argv[1] == "scripted":
    print(bits(torch.jit.script(pair())(x)))
elif sys.argv[1] == "adapted":  # a layer is replaced between two calls
    model = pair()
    print(bits(model(x)))
    model.second = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 4))
    print(bits(model(x)))
elif sys.argv[1] == "own-call":  # the script itself replaces Module.__call__ for a while
    original, names = torch.nn.Module.__call__, []

    def call(self, *args, **kwargs):
        names.append(type(self).__name__)
        return original(self, *args, **kwargs)

    torch.nn.Module.__call__ = call
    print(bits(pair()(x)), names)
    torch.nn.Module.__call__ = original
    print(bits(pair()(x)), names)
elif sys.argv[1] == "own-hooks":
    seen = []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda m, i, o: seen.append(type(m).__name__))
    print(bits(pair()(x)), seen)
    handle.remove()
