"""Finished packages of AOTInductor whose sources are gone, in C++ and Python: one run of such a model is one operation, and a note
says so. Those with sources: test_package_inside.py."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from aoti import without_sources
from support import ENVIRONMENT, GRAPHPATCH, PROGRAMS, ROOT, TIMEOUT, Result, run_process, same_bits, tree_in

INSIDE = "is one operation, `aoti_model`"
OUTSIDE = "was run outside of every call of a module: nothing of it was seen"


class Tiny(torch.nn.Module):
    """Linear layers whose products are kernels of libtorch's, which dispatch inside, and a fused activation."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = torch.nn.Linear(4, 8), torch.nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.relu(self.up(x))
        return self.down(hidden), hidden.sum(0)


@dataclass
class Package:
    file: Path
    inputs: Path
    x: torch.Tensor

    def run(self, out: Path, *options: Any, before: tuple[Any, ...] = ()) -> tuple[Result, Any]:
        """Runs the C++ program, after the words `before` of a command line. Returns its outputs by thread and run."""
        done = run_process([*before, PROGRAMS / "packaged", self.file, self.inputs, out, *options]).ok()
        return done, torch.load(out, weights_only=False)

    def patched(self, out: Path, *patches: str) -> Any:
        before = (GRAPHPATCH, "run", *(f"--patch={patch}" for patch in patches), "--")
        return self.run(out, before=before)[1][0][0]

    def python(self, how: str, *before: Any) -> Result:
        script = ROOT / "tests/programs/python/packaged.py"
        return run_process([*before, sys.executable, script, self.file, self.inputs, how]).ok()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The package, compiled once by a process of its own, because Inductor's compiler starts many processes."""
    folder = tmp_path_factory.mktemp("package")
    torch.manual_seed(0)
    x = torch.randn(2, 4)
    torch.save((x,), folder / "inputs.pt")
    torch.save((Tiny().eval(), x), folder / "model.pt")
    code = (
        "import sys, torch; sys.path[:0] = sys.argv[2:]; import test_packages\n"
        "model, x = torch.load(sys.argv[1] + '/model.pt', weights_only=False)\n"
        "with torch.no_grad(): program = torch.export.export(model, (x,))\n"
        "torch._inductor.aoti_compile_and_package(program, package_path=sys.argv[1] + '/tiny.pt2')\n"
    )
    places = [str(ROOT / "tests/torch"), str(ROOT / "tests/helpers")]
    command = [sys.executable, "-c", code, str(folder), *places]
    subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT, env=ENVIRONMENT)
    return Package(without_sources(folder / "tiny.pt2", folder / "bare.pt2"), folder / "inputs.pt", x)


@pytest.mark.parametrize("options", [(), ("--runner",)])
def test_a_run_is_one_operation(package: Package, tmp_path: Path, options: tuple[str, ...]) -> None:
    bare = package.run(tmp_path / "bare.pt", "--runs", 2, *options)[1]
    done, outputs = package.run(tmp_path / "out.pt", "--runs", 2, *options, before=(GRAPHPATCH, "run", "--tree", "--"))
    assert same_bits(outputs, bare)
    tree = tree_in(done.stderr)
    for node in ("aoti_model:", "aoti_model_1:"):
        assert f"├─{node} list(2)\n│ ├─sub_0: Tensor(2, 3)\n│ └─sub_1: Tensor(8)\n" in tree, tree
    # Operations that the model's kernels call inside must not appear.
    assert not any(name in tree for name in ("resolve_conj", "expand", "addmm", "mm:")), tree
    assert "because its source has no function `run_impl`" in done.stderr
    assert done.stderr.count(INSIDE) == 1 and "data/aotinductor/model/" in done.stderr, done.stderr


CASES: dict[str, Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]] = {
    "aoti_model|sub_0=zero": lambda a, b: (torch.zeros_like(a), b),
    "aoti_model|sub_1=add:0.5": lambda a, b: (a, b + 0.5),
    "aoti_model|sub_1[2:4]=replace:7": lambda a, b: (a, torch.cat([b[:2], torch.full((2,), 7.0), b[4:]])),
}


@pytest.mark.parametrize("patch", CASES)
def test_outputs_are_patched(package: Package, tmp_path: Path, patch: str) -> None:
    ((bare,),) = package.run(tmp_path / "bare.pt")[1]
    assert same_bits(package.patched(tmp_path / "out.pt", patch), CASES[patch](*bare))


def test_outputs_are_kept(package: Package, tmp_path: Path) -> None:
    ((bare,),) = package.run(tmp_path / "bare.pt")[1]
    kept = tmp_path / "kept.safetensors"
    probes = [f"--probe=aoti_model|sub_{i}" for i in range(2)]
    package.run(tmp_path / "out.pt", before=(GRAPHPATCH, "run", *probes, "--save", kept, "--"))
    saved = list(load_file(kept).values())
    assert len(saved) == 2 and all(any(same_bits(value, output) for value in saved) for output in bare)


def test_threads_with_a_runner_each(package: Package, tmp_path: Path) -> None:
    before = (GRAPHPATCH, "run", "--patch=aoti_model|sub_0=zero", "--")
    bare = package.run(tmp_path / "bare.pt")[1][0][0]
    outputs = package.run(tmp_path / "out.pt", "--threads", 3, "--runs", 2, before=before)[1]
    for first, second in outputs:
        assert same_bits(first, (torch.zeros_like(bare[0]), bare[1])) and same_bits(second, bare)


def test_exceptions_of_the_model_pass(package: Package, tmp_path: Path) -> None:
    bare = package.run(tmp_path / "bare.pt", "--wrong")[1]
    patched = package.run(tmp_path / "out.pt", "--wrong", before=(GRAPHPATCH, "run", "--tree", "--"))[1]
    assert patched == bare


def test_a_python_program_that_calls_no_module(package: Package) -> None:
    bare = package.python("alone")
    seen = package.python("alone", GRAPHPATCH, "run", "--tree", "--")
    assert seen.stdout == bare.stdout
    assert seen.stderr.count(OUTSIDE) == 1 and "data/aotinductor/model/" in seen.stderr, seen.stderr


def test_a_python_module_that_calls_a_package(package: Package) -> None:
    bare = package.python("module")
    seen = package.python("module", GRAPHPATCH, "run", "--tree", "--")
    assert seen.stdout == bare.stdout
    tree = tree_in(seen.stderr)
    assert "├─aoti_model: list(2)" in tree and "├─sum_1:" in tree and "addmm" not in tree, tree
    # The other operand of the sum, as plain PyTorch computes it.
    torch.manual_seed(0)
    torch.randn(2, 4)
    with torch.no_grad():
        right = Tiny().eval()(package.x)[1].sum().item()
    patched = package.python("module", GRAPHPATCH, "run", "--patch=aoti_model|sub_0=zero", "--")
    assert float(patched.stdout) == pytest.approx(right, abs=1e-5)


def test_a_program_that_is_not_looked_at(package: Package, tmp_path: Path) -> None:
    bare = package.run(tmp_path / "bare.pt")[1]
    done, outputs = package.run(tmp_path / "out.pt", before=(GRAPHPATCH, "run", "--operations", "never", "--"))
    assert same_bits(outputs, bare) and "AOTInductor" not in done.stderr
