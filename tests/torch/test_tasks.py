"""TorchScript models with parallel tasks (`torch.jit.fork`): what the tasks do is not seen, and the program runs as it does."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from support import KINDS, leaves, same_bits, save


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.lin(x))


class Tasks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.lin = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        tasks: list[torch.jit.Future[Tensor]] = []
        for block in self.blocks:
            tasks.append(torch.jit.fork(block, x))
        y = self.lin(x)
        for task in tasks:
            y = y + torch.jit.wait(task)
        return y.sigmoid()


X = torch.arange(6.0).view(2, 3) / 4


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_that_call_modules(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    module = Tasks().eval()
    saved = save(module, (X,), tmp_path, kind)
    bare = saved.bare("--runs", 3).ok()
    recorded = saved.run("--runs", 3).ok()
    assert same_bits(recorded.outputs, bare.outputs)
    assert "lin.linear" in [path for path, _ in leaves(recorded.tree)]
    if kind == "scripted":  # tracing leaves no task behind
        assert "run as parallel tasks" in recorded.stderr
    with torch.no_grad():
        tasks = [block(X) for block in module.blocks]
        expected = (torch.zeros(2, 3) + tasks[0] + tasks[1]).sigmoid()
    patched = saved.run("--runs", 3, patches=["lin.output=zero"], tree=False).ok()
    assert all(same_bits(run, expected) for run in patched.outputs[0])
    # What cannot be seen is reported as a patch that never matched.
    missed = saved.run(patches=["blocks_0.lin.output=zero"], tree=False)
    if kind == "scripted":
        assert missed.code == 3 and "blocks_0.lin.output" in missed.stderr, missed.stderr
        assert same_bits(missed.output, bare.output)
