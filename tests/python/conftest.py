"""The tests of the Python binding: the package of this checkout, with the library of this checkout."""

import os
import sys

import pytest

from checkout import ROOT

sys.path.insert(0, str(ROOT / "bindings" / "python"))
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(ROOT / "bindings" / "python"), os.environ.get("PYTHONPATH")])
)

import torch

# One thread: sums then come in the same order every time.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
