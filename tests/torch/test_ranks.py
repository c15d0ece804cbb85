"""`graphpatch run` with a model that lies on two ranks: patches mean the whole value, and the graphs of the ranks are one."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from support import ENVIRONMENT, GRAPHPATCH, ROOT, TIMEOUT

SCRIPTS = ROOT / "tests/programs/python"


def run(way: str, *options: Any, code: int = 0) -> subprocess.CompletedProcess[str]:
    # With --standalone, torchrun picks a free port instead of a fixed one.
    launcher = [] if way == "whole" else ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [GRAPHPATCH, "run", *options, "--", sys.executable, *launcher, "parallel.py", way]
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, cwd=SCRIPTS, env=ENVIRONMENT, timeout=TIMEOUT
    )
    assert done.returncode == code, done.stderr
    return done


def values(done: subprocess.CompletedProcess[str]) -> list[float]:
    return [float(word) for word in done.stdout.split()]


PATCHES = ["up.linear[..., 0:3]=add:1", "act.output[..., -2]=replace:2", "down.linear[0]=zero", "up.weight[1]=zero"]


@pytest.fixture(scope="module")
def whole() -> tuple[list[float], list[float]]:
    return values(run("whole", "--summary")), values(run("whole", *options()))


def options() -> list[str]:
    return [word for patch in PATCHES for word in ("--patch", patch)]


@pytest.mark.parametrize("way", ["dtensor", "local"])
def test_patches_and_graphs(way: str, whole: tuple[list[float], list[float]], tmp_path: Path) -> None:
    bare, patched = whole
    kept = ["--probe", "up.output", "--probe", "act.gelu", "--save", tmp_path / "kept.safetensors"]
    done = run(way, *options(), *kept, "--graph", tmp_path / "g.json", "--summary")
    assert values(done) == pytest.approx(patched, abs=2e-4)
    assert patched != pytest.approx(bare, abs=1e-2)
    assert "what is kept is this rank's part: " in done.stderr
    assert "DTensor[Shard(1) of 2]" in done.stderr or "DTensor (2, 8)[Shard(1) of 2]" in done.stderr
    parts = [load_file(tmp_path / f"kept.rank{rank}.safetensors") for rank in range(2)]
    assert all(tuple(part[path].shape) == (2, 4) for part in parts for path in part)
    merge(tmp_path, way)


def merge(folder: Path, way: str) -> None:
    merged = folder / "merged.json"
    done = graphpatch("merge", *sorted(folder.glob("g.rank*.json")), "-o", merged)
    assert done.returncode == 0 and not done.stdout, done
    shapes = graphpatch("show", merged, "--shape").stdout.splitlines()
    assert "up.linear: Tensor(2, 8) float32 cpu DTensor[Shard(1) of 2]" in shapes
    assert "down.linear: Tensor(2, 4) float32 cpu DTensor[Partial(sum) of 2]" in shapes
    in_parts = "act.gelu: Tensor(2, 8) float32 cpu DTensor[Shard(1) of 2]" + (", in parts" if way == "local" else "")
    assert in_parts in shapes
    by_pattern = graphpatch("show", folder / "g.rank*.json", "--shape")
    assert by_pattern.stdout.splitlines() == shapes
    tree = graphpatch("show", merged).stdout
    assert len(tree.splitlines()) == 1 + len(shapes) + 3  # the root and three modules, no node twice


def graphpatch(*args: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in (GRAPHPATCH, *args)], capture_output=True, text=True, timeout=TIMEOUT)


def test_merging_what_cannot_be(tmp_path: Path) -> None:
    nothing = graphpatch("merge", tmp_path / "g.rank*.json", "-o", tmp_path / "m.json")
    assert nothing.returncode == 2 and "no file has such a name" in nothing.stderr
    run("whole", "--graph", tmp_path / "g.json")
    onto = graphpatch("merge", tmp_path / "g.json", "-o", tmp_path / "g.json")
    assert onto.returncode == 2 and "one of the graphs to be merged" in onto.stderr
