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
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from support import ROOT

DIST = ROOT / "build/dist"
TOOLS = ["bash", "cat", "env", "mkdir", "rm", "sh", "uname"]
# The folder of the interpreter's own packages, which has what torch and the demo need.
PACKAGES = Path(str(importlib.util.find_spec("torch").origin)).parents[1]


class Machine:
    """A PATH with the new environment and a few tools, and a home with nothing in it."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder, self.wheel, tools = folder, wheel, folder / "tools"
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
    found = list(DIST.glob("*.whl"))
    if not found:
        pytest.fail(f"no wheel in {DIST}; run `make wheel`, as `make test-docs` does")
    (wheel,) = found
    assert re.fullmatch(r"libgraphpatch-[\d.]+-py3-none-manylinux_2_28_x86_64\.whl", wheel.name)
    make(sys.executable, "-m", "venv", folder / "venv")
    make(folder / "venv/bin/python", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel)
    (own,) = (folder / "venv/lib").glob("python*/site-packages")
    (own / "torch.pth").write_text(f"{PACKAGES}\n")
    return Machine(folder, wheel)


# The newest symbols that manylinux_2_28 has (auditwheel's policy).
NEWEST = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 24)}


def test_the_tag_is_true(machine: Machine) -> None:
    """No program in it asks for a symbol that the platform has not."""
    binaries = 0
    with zipfile.ZipFile(machine.wheel) as archive:
        for name in archive.namelist():
            if not (content := archive.read(name)).startswith(b"\x7fELF"):
                continue
            binaries += 1
            file = machine.folder / "binary"
            file.write_bytes(content)
            listed = subprocess.run(["readelf", "-W", "-V", file], capture_output=True, text=True, check=True).stdout
            needs = re.findall(r"Name: (GLIBC|GLIBCXX)_([\d.]+)", listed.partition("Version needs section")[2])
            newer = [need for need in needs if tuple(map(int, need[1].split("."))) > NEWEST[need[0]]]
            assert needs and not newer, f"{name} asks for {newer}"
    assert binaries >= 3, "the library, the command and an adapter"


def test_a_wheel_for_an_older_machine_is_refused(machine: Machine) -> None:
    """`make wheel` asks for glibc 2.28, and gets that or an error. Adapters ask for more than 2.17 has."""
    command = [sys.executable, "packaging/wheel.py", DIST / "adapters", machine.folder / "older", "2.17"]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 1 and re.search(r"does not run with glibc 2\.17: it asks for .*@GLIBC", refused.stderr)
    assert not list((machine.folder / "older").glob("*.whl"))


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


def test_the_examples_of_python(machine: Machine) -> None:
    """Those of the series need nothing but the wheel and torch."""
    series = ROOT / "bindings/python/examples/series"
    assert sorted(file.name for file in series.glob("0*.py")) == ["01_tree.py", "02_patch.py", "03_function.py"]
    tree = machine.run("python", series / "01_tree.py", "g.json")
    assert machine.run("graphpatch", "show", "g.json") in tree and "linear = aten.linear(input, weight, bias)" in tree

    torch.manual_seed(0)
    up, down = torch.nn.Linear(4, 16), torch.nn.Linear(16, 4)
    x, other = torch.ones(2, 4), torch.arange(8.0).reshape(2, 4) / 8
    with torch.no_grad():
        hidden = torch.relu(up(x))
        zeroed, swapped = hidden.clone(), hidden.clone()
        zeroed[:, :8], swapped[0] = 0, torch.relu(up(other))[0]
        bare, patched = down(hidden).sum().item(), (down(zeroed) + 0.5).sum().item()
        expected = [bare, patched, bare, 4 * 0.5 * hidden.sum().item(), down(swapped).sum().item()]
    said = machine.run("python", series / "02_patch.py") + machine.run("python", series / "03_function.py")
    numbers = [float(line.split()[-1]) for line in said.splitlines() if re.search(r" -?\d+\.\d{6}$", line)]
    assert numbers == pytest.approx(expected, abs=2e-5), said
    assert "kept (2, 16), 1 applied" in said and "nearest: relu" in said
