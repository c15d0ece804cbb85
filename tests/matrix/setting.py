"""Where the tests of this folder import from, and how torch runs there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "matrix.md"
PACKAGE = str(ROOT / "bindings" / "python")
sys.path[:0] = [PACKAGE, str(ROOT / "tests" / "helpers")]
# Inductor compiles in this process, and not in many that it would start.
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"

import torch

# One thread, so that sums are always computed in the same order.
torch.set_num_threads(1)
