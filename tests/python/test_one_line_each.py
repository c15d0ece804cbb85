"""The example of one line for each experiment runs as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "bindings" / "python" / "examples" / "one_line_each.py"


def test_the_example_runs() -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", EXAMPLE], capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr
    said = result.stdout
    assert (
        "MLPs: transformer.h_0.mlp transformer.h_1.mlp" in said
        and "norms of the MLPs' outputs: torch.Size([4, 1, 5])" in said
    )
    assert "Counts(matched=1, applied=1, failed=0)" in said and "the run ended behind: (1, 5, 32)" in said
    assert "Sweep(4 nodes × 5 positions" in said and " 0 wrong" in said
