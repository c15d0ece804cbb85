"""Prints the outputs of one call; with `hook`, the second call of the linear gives zeros."""

import sys

import torch

from model import TupleOutputModule, bits

torch.manual_seed(0)
module, x = TupleOutputModule(), torch.randn(3, 2)
calls = []


def hook(_module, _inputs, output):
    calls.append(output)
    return torch.zeros_like(output) if len(calls) == 2 else None


if "hook" in sys.argv:
    module.linear.register_forward_hook(hook)
if "graph" in sys.argv:
    from libgraphpatch import PatchableGraph

    print(repr(PatchableGraph(module, x).graph))
else:
    with torch.no_grad():
        for output in module(x):
            print(bits(output))
