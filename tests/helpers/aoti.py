"""Packages of AOTInductor's for tests. Run as a program, it compiles them, because Inductor's compiler starts many processes:
`aoti.py FOLDER`."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cpp_models import Gpt
from support import ENVIRONMENT, TIMEOUT


class Attention(nn.Module):
    """Attention by functions, and an activation of each kind: a function and a module."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 16), nn.Linear(16, 8)
        self.act = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm(x)).chunk(3, -1)
        weights = torch.softmax(query @ key.transpose(-1, -2) / 8**0.5, -1)
        return self.down(nn.functional.gelu(self.up(weights @ value))) + self.act(x)


def _made(name: str) -> tuple[nn.Module, Tensor, Any]:
    """A model, its input, and which of the input's sizes may differ from run to run."""
    torch.manual_seed(0)
    if name == "gpt":
        return Gpt().eval(), torch.randint(0, 50, (2, 6)), None
    return Attention().eval(), torch.randn(3, 5, 8), ({0: torch.export.Dim("batch", min=2, max=64)},)


NAMES = ("gpt", "free")


def write(folder: Path) -> None:
    for name in NAMES:
        model, x, free = _made(name)
        with torch.no_grad():
            program = torch.export.export(model, (x,), dynamic_shapes=free)
            torch._inductor.aoti_compile_and_package(program, package_path=str(folder / f"{name}.pt2"))
        torch.export.save(program, folder / f"{name}-program.pt2")
        torch.save((x,), folder / f"{name}-inputs.pt")


def compile_all(folder: Path) -> None:
    """Writes the packages, their programs and inputs into a folder."""
    command = [sys.executable, str(Path(__file__)), str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT, env=ENVIRONMENT)


def without_sources(package: Path, output: Path) -> Path:
    """A copy of a package whose sources are empty: libtorch's loader wants the files, but does not read them."""
    with zipfile.ZipFile(package) as given, zipfile.ZipFile(output, "w", zipfile.ZIP_STORED) as made:
        for name in given.namelist():
            made.writestr(name, b"" if name.endswith(".cpp") else given.read(name))
    return output


def copy_names(package: Path, output: Path) -> None:
    """Puts the names of a package's values into another package."""
    with zipfile.ZipFile(package) as given, zipfile.ZipFile(output, "a", zipfile.ZIP_STORED) as made:
        (names,) = (name for name in given.namelist() if name.endswith("/graphpatch_names.json"))
        source = next(name for name in made.namelist() if name.endswith(".wrapper.cpp"))
        made.writestr(f"{source.rpartition('/')[0]}/graphpatch_names.json", given.read(names))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
