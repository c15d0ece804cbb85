"""A model, eager or compiled: `parting.py eager|compiled|wrong`. `wrong` compiles by a lowering of tanh that is wrong by a
constant."""

import sys

import torch

torch.set_num_threads(1)
how = sys.argv[1]
torch.manual_seed(0)


class Net(torch.nn.Module):
    """Two layers, and operations between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The scores of each row."""
        x = torch.sigmoid(self.first(x)) + 1
        x = torch.tanh(self.second(x)) * 3
        return self.last(x)


if how == "wrong":
    import torch._functorch.config
    from torch._inductor import config, lowering

    # What is compiled here is of no use to others, and theirs not here. The caches of C++ code go by its text.
    config.fx_graph_cache = torch._functorch.config.enable_autograd_cache = False
    # This compiles fastest.
    config.compile_threads, config.cpp.vec_isa_ok, config.cpp_cache_precompile_headers = 1, False, False
    tanh = torch.ops.aten.tanh.default
    right = lowering.lowerings[tanh]
    lowering.lowerings[tanh] = lambda x: lowering.lowerings[torch.ops.aten.add.Tensor](right(x), 0.125)

model, x = Net().eval(), torch.linspace(-1, 1, 24).reshape(3, 8)
if how != "eager":
    model = torch.compile(model)
with torch.no_grad():
    print(model(x).sum().item())
