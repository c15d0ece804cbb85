"""A process that forks while its other threads patch and record: every child works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest
import torch
from torch import nn

from checkout import ROOT
from libgraphpatch import AddPatch, PatchableGraph, ZeroPatch

PROGRAM = ROOT / "tests" / "programs" / "python" / "fork_program.py"


def ends(*arguments: str) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments], capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, int] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("arguments", [["bare"], []], ids=["bare", "patched"])
def test_no_child_hangs(arguments: list[str]) -> None:
    assert ends(*arguments) == {"right": 100}


def test_a_child_has_the_patches_of_its_parent_and_changes_only_its_own() -> None:
    net, x = nn.Linear(3, 2), torch.ones(1, 3)
    pg = PatchableGraph(net, x)
    with torch.inference_mode(), pg.patch({"output": AddPatch(value=1.0)}):
        expected = net.weight @ x[0] + net.bias + 1
        child = os.fork()
        if child == 0:
            code = 1
            try:
                own = torch.allclose(pg(x)[0], expected)
                with pg.patch({"output": ZeroPatch()}):
                    code = 0 if own and not pg(x).any() else 2
            finally:
                os._exit(code)
        assert torch.allclose(pg(x)[0], expected)
    assert os.waitpid(child, 0)[1] == 0


def test_a_fork_that_becomes_another_program_waits_for_nobody() -> None:
    """Even while a thread is inside the function of a patch: the library holds no lock there."""
    from libgraphpatch import CustomPatch

    inside, go_on = threading.Event(), threading.Event()

    def wait(value: torch.Tensor) -> torch.Tensor:
        inside.set()
        assert go_on.wait(60)
        return value

    pg = PatchableGraph(nn.Linear(3, 2), torch.ones(1, 3))
    with pg.patch({"output": CustomPatch(custom_op=wait)}):
        thread = threading.Thread(target=pg, args=(torch.ones(1, 3),))
        thread.start()
        try:
            assert inside.wait(60)
            begin = time.monotonic()
            child = os.fork()
            if child == 0:
                os.execv("/bin/true", ["true"])
            assert os.waitpid(child, 0)[1] == 0
            # A fork that waits for the library's locks gives up after five seconds.
            assert time.monotonic() - begin < 4
        finally:
            go_on.set()
            thread.join()
