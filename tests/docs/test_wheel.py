"""The wheel, installed into an empty environment on a machine without a compiler and without a cache of adapters; and the tarball."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from support import ROOT

TOOLS = ["bash", "cat", "env", "mkdir", "rm", "sh", "uname"]
# The folder of the interpreter's own packages, which has what torch and the demo need.
PACKAGES = Path(str(importlib.util.find_spec("torch").origin)).parents[1]


class Machine:
    """A PATH with the new environment and a few tools, and a home with nothing in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, tools = folder, folder / "tools"
        tools.mkdir()
        for name in TOOLS:
            (tools / name).symlink_to(str(shutil.which(name)))
        self.environment = {
            "PATH": f"{folder}/venv/bin:{tools}",
            "HOME": str(folder / "home"),
            "CXX": "",
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
        }

    def run(self, *command: str | Path, **environment: str) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env={**self.environment, **environment}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def make(*command: str | Path) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().rpartition("\n")[2]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    folder = tmp_path_factory.mktemp("wheel")
    make("target/release/graphpatch", "doctor", "--build", "--torch", PACKAGES / "torch", "--into", folder / "adapters")
    wheel = make(sys.executable, "packaging/wheel.py", folder / "adapters", folder / "dist")
    assert re.fullmatch(r"libgraphpatch-[\d.]+-py3-none-manylinux_2_\d+_x86_64\.whl", Path(wheel).name)
    make(sys.executable, "-m", "venv", folder / "venv")
    make(folder / "venv/bin/python", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel)
    (own,) = (folder / "venv/lib").glob("python*/site-packages")
    (own / "torch.pth").write_text(f"{PACKAGES}\n")
    return Machine(folder)


def test_there_is_no_compiler(machine: Machine) -> None:
    assert "compiler   none" in machine.run("bash", "-c", "graphpatch doctor 2>&1 || true").replace("not found", "none")


def test_the_package_works(machine: Machine) -> None:
    script = (
        "import torch, libgraphpatch as g\n"
        "model = torch.nn.Sequential(torch.nn.Linear(2, 3))\n"
        "pg = g.PatchableGraph(model, torch.ones(1, 2))\n"
        "with pg.patch({'sub_0.output': g.ZeroPatch()}):\n"
        "    print(g.__file__, pg(torch.ones(1, 2)).abs().sum().item())\n"
    )
    file, number = machine.run("python", "-c", script).split()
    assert Path(file).is_relative_to(machine.folder / "venv") and float(number) == 0


def test_the_command_and_its_demo_work(machine: Machine) -> None:
    assert machine.run("graphpatch", "--version").startswith("graphpatch ")
    shown = machine.run("graphpatch", "demo", "demo")
    assert "similarity 0.56" in shown and "How to read it" in shown and len(shown.splitlines()) <= 25
    assert (machine.folder / "demo/index.html").stat().st_size > 100_000
    assert not list((machine.folder / "home").rglob("adapter-*.so")), "the adapter of the wheel was not used"


def test_manual_and_completions_are_there(machine: Machine) -> None:
    share = machine.folder / "venv/share"
    assert ".TH graphpatch-run 1" in (share / "man/man1/graphpatch-run.1").read_text()
    assert "_graphpatch_or_path" in (share / "bash-completion/completions/graphpatch").read_text()


def test_the_tarball_has_sums_and_materials() -> None:
    file = ROOT / make("packaging/dist.sh")
    sums = dict(reversed(line.split("  ")) for line in (file.parent / "SHA256SUMS").read_text().splitlines())
    assert sums[file.name] == hashlib.sha256(file.read_bytes()).hexdigest()
    with tarfile.open(file) as archive:
        names = [name.split("/", 1)[1] for name in archive.getnames() if "/" in name]
        bill: dict[str, Any] = json.load(
            archive.extractfile(f"{file.name.removesuffix('.tar.gz')}/bill-of-materials.cdx.json")
        )
    for wanted in [
        "bin/graphpatch",
        "include/graphpatch.h",
        "lib/cmake/graphpatch/graphpatchConfig.cmake",
        "LICENSE-MIT",
    ]:
        assert wanted in names
    listed = {component["name"] for component in bill["components"]}
    assert bill["bomFormat"] == "CycloneDX" and {"clap", "serde_json", "graphpatch-core"} <= listed
    assert "proptest" not in listed, "a crate of the tests is in no product"
