"""Scripted modules that are called on several threads while blocks open and close."""

from __future__ import annotations

import json
import subprocess
import sys

from checkout import ROOT

PROGRAM = ROOT / "tests" / "programs" / "python" / "script_threads_program.py"
REPETITIONS, BLOCKS = 20, 100


def test_a_warm_module_is_called_while_blocks_open_and_close() -> None:
    # A process of its own, because a fault here would crash it.
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(REPETITIONS)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    counts: dict[str, int] = json.loads(done.stdout)
    assert not any("neither" in key for key in counts), counts
    # On the thread that opens the block, patches always hold inside it and never after it.
    assert counts["inside: patched"] == counts["outside: bare"] == REPETITIONS * BLOCKS
    assert "inside: bare" not in counts and "outside: patched" not in counts
    # Direct calls of the inner module are not part of the patched graph.
    for thread in (0, 1):
        assert counts[f"direct {thread}: bare"] > 0 and f"direct {thread}: patched" not in counts
        assert counts[f"whole {thread}: bare"] > 0 and counts[f"whole {thread}: patched"] > 0
