"""`graphpatch run -- python script.py` with a script that runs an exported program."""

import subprocess
import sys

import torch

from support import ENVIRONMENT, GRAPHPATCH, ROOT, TIMEOUT, tree_in

SCRIPT = [sys.executable, str(ROOT / "tests/programs/python/exported.py")]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, env=ENVIRONMENT, check=True)


def test_scopes_and_patches_of_an_exported_program() -> None:
    bare = run(*SCRIPT)
    seen = run(str(GRAPHPATCH), "run", "--tree", "--", *SCRIPT)
    assert seen.stdout == bare.stdout
    tree = tree_in(seen.stderr)
    assert "├─layers_0: Graph" in tree and "│ ├─up: Graph" in tree and "_guards_fn" not in tree, seen.stderr
    patches = [f"--patch=Decoder:layers_{number}.down.linear=zero" for number in range(2)]
    patched = run(str(GRAPHPATCH), "run", *patches, "--", *SCRIPT)

    torch.manual_seed(0)
    x = torch.randn(2, 4)
    assert patched.stdout.split("\n")[0] == f"0 {x.double().sum().item()}"
