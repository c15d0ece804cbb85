"""Runs a package of AOTInductor's: `packaged.py PACKAGE INPUTS alone|module`."""

import sys

import torch

package, inputs, how = sys.argv[1:]
model = torch._inductor.aoti_load_package(package)


class Holder(torch.nn.Module):
    """A module whose forward calls the package."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One value of both outputs."""
        left, right = model(x)
        return left.sum() + right.sum()


(x,) = torch.load(inputs)
with torch.no_grad():
    if how == "module":
        print(Holder()(x).item())
    else:
        print([value.tolist() for value in model(x)])
