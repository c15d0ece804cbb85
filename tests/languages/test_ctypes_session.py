"""The example program for languages without a binding (session.py): its results are those of PyTorch."""

import json
import sys
from pathlib import Path

import torch

from models import TupleOutputModule
from support import GRAPHPATCH, ROOT, run_process, trees_in


def test_session_by_ctypes(tmp_path: Path) -> None:
    torch.manual_seed(4)
    module = TupleOutputModule().eval()
    torch.jit.script(module).save(str(tmp_path / "model.pt"))
    library = GRAPHPATCH.with_name("libgraphpatch.so")
    result = run_process(
        [sys.executable, ROOT / "tests/programs/python/session.py", library, tmp_path / "model.pt"]
    ).ok()

    *tree, values, bare = result.stdout.splitlines()
    assert trees_in(result.stdout) == ["".join(line + "\n" for line in tree)]
    assert "├─linear_1: Graph(5)" in tree and tree[-1] == "  └─sub_1: Tensor(3, 3)"
    assert "linear.output" in result.stderr
    with torch.no_grad():
        first = module(torch.arange(6.0).reshape(3, 2))[0]
    patched = first.clone()
    patched[0] = 0
    found = json.loads(values)
    assert found["kept"] == first.flatten().tolist() == json.loads(bare)
    assert found["patched"] == patched.flatten().tolist()
    assert found["seen"] == [patched[:, 1].tolist()]
