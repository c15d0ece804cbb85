"""A model in one process, or under torchrun with its layers on two ranks: with `local`, their parts are plain tensors
between the layers. Prints the result's values."""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.act, self.down = nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4)

    def forward(self, x):
        return self.down(self.act(self.up(x)))


torch.manual_seed(0)
torch.set_num_threads(1)
model, x = Mlp(), torch.randn(2, 4)
rank = 0
if sys.argv[1] != "whole":
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    up = ColwiseParallel(use_local_output=sys.argv[1] == "local")
    parallelize_module(model, init_device_mesh("cpu", (2,)), {"up": up, "down": RowwiseParallel()})
with torch.no_grad():
    out = model(x)
if rank == 0:
    print(*[f"{value:.4f}" for value in out.flatten().tolist()])
if sys.argv[1] != "whole":
    dist.barrier()
    dist.destroy_process_group()
