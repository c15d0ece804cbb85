"""TorchScript: a parameter that a module reads although a module below it owns it, and one that a module returns."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from support import Saved, same_bits, save

X = torch.arange(6.0).view(2, 3) / 4


class Gives(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.arange(9.0).view(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.w


@torch.jit.script
class Box:
    def __init__(self, held: Tensor):
        self.held = held


class Opens(nn.Module):
    def forward(self, x: Tensor, box: Box) -> Tensor:
        return x @ box.held


class Reads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(3, 3)
        self.deep = nn.Sequential(nn.Linear(3, 3))
        self.gives = Gives()
        self.opens = Opens()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        first = x @ self.before.weight
        second = self.before(x)
        third = self.deep(x) + self.deep[0].bias
        return first, second, third, x @ self.gives(x), self.opens(x, Box(self.before.weight))


def test_a_patch_holds_in_the_scope_that_its_path_names_and_below(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Reads().eval()
    saved: Saved = save(module, (X,), tmp_path)
    w, b, g = module.before.weight.detach(), module.deep[0].bias.detach(), module.gives.w.detach()

    def check(patches: list[str], read: Tensor, own: Tensor, bias: Tensor, given: Tensor) -> None:
        third = F.linear(X, module.deep[0].weight.detach(), b) + bias
        expected = X @ read, F.linear(X, own, module.before.bias.detach()), third, X @ given, X @ read
        for found in saved.run("--runs", 2, patches=patches, tree=False).ok().outputs[0]:
            assert same_bits(found, expected), patches

    check(["before_weight=add:1", "gives.w=add:1"], w + 1, w + 1, b, g + 1)
    check(["before.weight=add:1", "deep_0_bias=add:1"], w, w + 1, b + 1, g)
    check(["before_weight=add:1", "before.weight=add:2"], w + 1, w + 1 + 2, b, g)


class ReadsData(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.arange(9.0).view(3, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        before = x @ self.w.data
        return before, x @ self.w


def test_memory_that_is_read_before_the_parameter_is_told(tmp_path: Path) -> None:
    module = ReadsData().eval()
    saved: Saved = save(module, (X,), tmp_path)
    w = module.w.detach()
    for tree in (False, True):
        done = saved.run("--runs", 2, patches=["w=add:1"], tree=tree).ok()
        assert all(same_bits(found, (X @ w, X @ (w + 1))) for found in done.outputs[0])
        assert "w=add:1: an operation reads the parameter's memory by another tensor" in done.stderr
