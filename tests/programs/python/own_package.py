"""A script that uses libgraphpatch itself, imported before or after torch."""

import sys

if "first" in sys.argv:
    import libgraphpatch
import torch

import libgraphpatch
from model import bits, pair


class Outer(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.neg(self.inner(x))


x, inner = torch.ones(2, 4), pair()
outer, pg = Outer(inner), libgraphpatch.PatchableGraph(inner, x)
with torch.no_grad():
    with pg.patch({"relu": libgraphpatch.ZeroPatch()}):
        print(bits(pg(x)), bits(outer(x)))
    print(repr(pg.graph), bits(pg(x)), bits(outer(x)))
