"""Settings for the tests of peer packages, which are written again here for the package of this checkout."""

import os
import sys

import pytest

from checkout import ROOT

PACKAGE = str(ROOT / "bindings" / "python")
sys.path.insert(0, PACKAGE)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [PACKAGE, os.environ.get("PYTHONPATH")]))

import torch

# One thread, so that sums are always computed in the same order.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
