"""`python -m pkg`."""

import torch

import model

print(model.bits(model.pair()(torch.ones(2, 4))))
