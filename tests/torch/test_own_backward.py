"""C++ functions that have their own backward (torch::autograd::Function): a gradient is right or refused."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support import GRAPHPATCH, PROGRAMS, run_process

CASES = ["around", "inside", "last", "noted_only", "parameter", "without_autograd"]


def test_every_case_is_run() -> None:
    listed = subprocess.run([PROGRAMS / "cpp_functions"], capture_output=True, text=True, check=True)
    assert sorted(listed.stdout.split()) == CASES


@pytest.mark.parametrize("case", CASES)
def test_in_a_cpp_program(case: str) -> None:
    assert run_process([PROGRAMS / "cpp_functions", case]).ok().stdout == "all as it must be\n"


class Squares(nn.Module):
    """Calls an operator of another library, whose gradient is a C++ function."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.tests.square(x + 1) * 3


SCRIPT = """
import sys, torch
torch.ops.load_library(sys.argv[1])
{model}
x = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
for _ in range(3):
    y = model(x)
(gradient,) = torch.autograd.grad(y.sum(), x)
print(y.tolist(), gradient.tolist())
"""
PYTHON = """
class Squares(torch.nn.Module):
    def forward(self, x):
        return torch.ops.tests.square(x + 1) * 3
model = Squares()
"""


@pytest.fixture(params=["python", "torchscript"])
def script(request: Any, tmp_path: Path) -> Path:
    file = tmp_path / "program.py"
    if request.param == "python":
        file.write_text(SCRIPT.format(model=PYTHON))
    else:
        torch.ops.load_library(PROGRAMS / "square_op.so")
        torch.jit.script(Squares()).save(tmp_path / "squares.pt")
        file.write_text(SCRIPT.format(model=f"model = torch.jit.load({str(tmp_path / 'squares.pt')!r})"))
    return file


def run(script: Path, *patches: str) -> tuple[str, str]:
    """The stdout of the program and the messages of the command."""
    options = [option for patch in patches for option in ("--patch", patch)]
    command = [GRAPHPATCH, "run", "--tree", "--on-error", "raise", *options, "--"]
    done = run_process([*command, sys.executable, script, PROGRAMS / "square_op.so"]).ok()
    return done.stdout.strip(), done.stderr


def expected(add: float = 0.0, square: float = 0.0, mul: float = 0.0) -> str:
    x = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    y = ((x + 1 + add).square() + square) * 3 + mul
    (gradient,) = torch.autograd.grad(y.sum(), x)
    return f"{y.tolist()} {gradient.tolist()}"


def test_an_operator_with_a_backward_of_its_own_is_one_node(script: Path) -> None:
    printed, said = run(script)
    assert printed == expected() and "├─square: Tensor(3)" in said and "div" not in said
    assert run(script, "add=add:1", "square=add:2", "mul=add:4")[0] == expected(1, 2, 4)
