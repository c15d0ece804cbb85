"""Under torchrun: a DDP model on every rank, its gradients reduced over gloo."""

import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

from model import bits, pair

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
model = DistributedDataParallel(pair())
model(torch.full((2, 4), rank + 1.0)).sum().backward()
if rank == 0:
    print(bits(model.module.first.weight.grad))
torch.distributed.destroy_process_group()
