"""What the tests of formats share: the readers of other projects, which `make test-formats` puts into build/formats-tests, and a
small model that runs in a Python program."""

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import GRAPHPATCH, ROOT, Result, run_process

# Last in the path, so that numpy and other packages that torch uses are still taken from the environment.
sys.path.append(str(ROOT / "build/formats-tests"))

SCRIPT = """
    import sys, threading, torch
    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(4, 4)
        def forward(self, x):
            a, b = self.fc(x).split(2, 1)
            return torch.cat([b, a], 1)
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = torch.nn.ModuleList(Block() for _ in range(2))
        def forward(self, x):
            for block in self.blocks:
                x = x + block(x)
            return x
    torch.manual_seed(0)
    net, x = Net(), torch.ones(3, 4)
    def call():
        print(float(net(x).sum()))
    for _ in range(int(sys.argv[1])):
        call()
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
"""


@pytest.fixture
def run_net(tmp_path: Path) -> Callable[..., Result]:
    """Runs `graphpatch COMMAND OPTIONS` on a program that calls the model some times, and once on another thread."""
    script = tmp_path / "net.py"
    script.write_text(textwrap.dedent(SCRIPT))

    def run(command: str, *options: Any, runs: int = 2) -> Result:
        return run_process([GRAPHPATCH, command, *options, "--", sys.executable, script, runs]).ok()

    return run
