"""Programs in other languages, as real processes; what they share with the process tests is taken from there."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "torch"))
