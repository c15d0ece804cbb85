"""Modules that are nested very deeply or have very odd names: the program runs, and its graph can be read."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hosting import GRAPHPATCH, compare

BEGIN = """
import sys
sys.setrecursionlimit(20000)
import threading
threading.stack_size(512 << 20)
import torch
torch.manual_seed(0)
"""
DEEP = """
def main():
    net = torch.nn.Linear(4, 4)
    for _ in range(DEPTH):
        net = torch.nn.Sequential(net)
    print(net(torch.ones(1, 4)).tolist())
thread = threading.Thread(target=main)
thread.start()
thread.join()
"""
ODD = """
net = torch.nn.Sequential()
for number in [*range(32), 127, *range(128, 160), 0x2028, 0x202E, 0xFFFF]:
    net._modules["a%sb.c" % chr(number)] = torch.nn.Linear(4, 4)
print(net(torch.ones(1, 4)).tolist())
"""


def graph(text: str, folder: Path) -> Path:
    """Saves the program's graph, and checks that the program does the same as without us."""
    script, saved = folder / "script.py", folder / "graph.json"
    script.write_text(BEGIN + text)
    under = compare([sys.executable, str(script)], folder, {}, "--graph", str(saved))
    assert b"damaged" not in under.stderr and b"failed" not in under.stderr, under.stderr
    return saved


def shown(saved: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(GRAPHPATCH), "show", str(saved), *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("depth", [60, 500, 1000])
def test_deep_modules(depth: int, tmp_path: Path) -> None:
    saved = graph(DEEP.replace("DEPTH", str(depth)), tmp_path)
    tree = shown(saved)
    assert tree.count("sub_0: Graph") == depth and "linear: Tensor(1, 4)" in tree
    path = ".".join(["sub_0"] * depth)
    assert "linear: Tensor(1, 4)" in shown(saved, path)


def test_every_control_character_in_a_name(tmp_path: Path) -> None:
    saved = graph(ODD, tmp_path)
    tree = shown(saved)
    assert tree.count("linear: Tensor(1, 4)") == 68 and json.loads(saved.read_text())
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e]", tree)
