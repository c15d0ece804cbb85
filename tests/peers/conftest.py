"""Settings for the tests of peer packages, which are written again here for the package of this checkout."""

import os
import sys
from pathlib import Path

import pytest

from checkout import ROOT

PACKAGE = str(ROOT / "bindings" / "python")
sys.path[:0] = [PACKAGE, str(Path(__file__).resolve().parent / "interventions")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [PACKAGE, os.environ.get("PYTHONPATH")]))

import torch

# One thread, so that sums are always computed in the same order.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
