"""Prints the outputs of one call."""

import torch
from model import TupleOutputModule, bits

torch.manual_seed(0)
module, x = TupleOutputModule(), torch.randn(3, 2)
with torch.no_grad():
    for output in module(x):
        print(bits(output))
