"""The package as pip installs it: with the library inside, away from the checkout."""

import os
import subprocess
import sys
from pathlib import Path

from checkout import ROOT

SCRIPT = """
import torch, libgraphpatch
from libgraphpatch import PatchableGraph, ZeroPatch
from libgraphpatch._library import lib
pg = PatchableGraph(torch.nn.Linear(2, 3), torch.ones(1, 2))
with pg.patch({"linear": ZeroPatch()}):
    assert not pg(torch.ones(1, 2)).any()
print(libgraphpatch.__version__, libgraphpatch.__file__, lib._name, sep="\\n")
"""


def clean_environment() -> dict:
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "GRAPHPATCH_LIBRARY")}


def test_pip_takes_the_library_along(tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--target",
            target,
            ROOT / "bindings" / "python",
        ],
        check=True,
        env=clean_environment(),
        cwd=elsewhere,
    )
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        cwd=elsewhere,
        env={**clean_environment(), "PYTHONPATH": str(target)},
    )
    assert result.returncode == 0, result.stderr
    version, package, library = result.stdout.split()
    assert Path(package).parent == Path(library).parent == target / "libgraphpatch"
    manifest = (ROOT / "Cargo.toml").read_text()
    assert f'\nversion = "{version}"\n' in manifest


def test_a_missing_library_says_what_to_do(tmp_path: Path) -> None:
    environment = {**clean_environment(), "PYTHONPATH": str(ROOT / "bindings" / "python")}
    result = subprocess.run(
        [sys.executable, "-c", "import libgraphpatch"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**environment, "GRAPHPATCH_LIBRARY": str(tmp_path / "nothing.so")},
    )
    assert result.returncode == 1
    assert "nothing.so" in result.stderr and "pip install" in result.stderr
