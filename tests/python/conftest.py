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

# One thread, so that sums are always computed in the same order.
torch.set_num_threads(1)


@pytest.fixture
def nothing_compiled() -> None:
    """Resets the state of torch.compile to that of a process in which nothing was compiled."""
    from libgraphpatch import _forward_scope

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    _forward_scope._compiles = False


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
