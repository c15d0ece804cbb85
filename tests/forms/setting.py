"""Where the tests of this folder, and the program that writes their page, import from; and how torch runs there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "forms.md"
sys.path[:0] = [str(ROOT / "bindings" / "python"), str(ROOT / "tests" / "helpers")]
# Behind all others, as only the reader of graphs is taken from there.
sys.path.append(str(ROOT / "tests" / "zoo"))
# Inductor compiles in this process, and not in many that it would start.
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"

import torch

# One thread, so that sums are always computed in the same order.
torch.set_num_threads(1)
