"""The packages' own spellings, run: where they are installed, each gives what plain PyTorch gives.

GRAPHPATCH_PEERS names a folder with nnsight, transformer_lens, pyvene, baukit or torchlens (`make peers` fills one). Without it
nothing is run here; a package that is not in the folder is skipped.
"""

from __future__ import annotations

import importlib
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from real_peers import namespace, why_not
from scene import scene

import test_interventions as table

FOLDER = os.environ.get("GRAPHPATCH_PEERS", "")
MODULES = {
    "nnsight": "nnsight",
    "TransformerLens": "transformer_lens",
    "pyvene": "pyvene",
    "baukit": "baukit",
    "TorchLens": "torchlens",
}
CASES = [(peer, each) for each in table.FOUND for peer in each.peers if FOLDER]


@pytest.fixture(scope="module")
def peers() -> dict[str, Any]:
    """What each package's spellings may use, by the package; made when it is first asked for."""
    sys.path.append(FOLDER)  # behind the packages that all share, such as torch
    return {}


def named(case: object) -> str:
    return case if isinstance(case, str) else table.known(case)


@pytest.mark.skipif(not FOLDER, reason="GRAPHPATCH_PEERS names no folder")
@pytest.mark.parametrize("peer, intervention", CASES, ids=named)
def test_a_peer_gives_what_plain_pytorch_gives(
    peer: str, intervention: table.Intervention, peers: dict[str, Any], tmp_path: Path
) -> None:
    if peer not in peers:
        try:
            module = importlib.import_module(MODULES[peer])
        except ModuleNotFoundError as why:
            pytest.skip(str(why))
        peers[peer] = namespace(peer, module, scene())
    why = why_not(peer, intervention.peers[peer])
    if why is not None:
        pytest.skip(why)
    expected = table.result(intervention.torch, scene())
    # nnsight reads the source of what it runs, so there must be a file.
    file = tmp_path / "spelling.py"
    file.write_text(intervention.peers[peer])
    with torch.enable_grad():
        found = runpy.run_path(str(file), init_globals=peers[peer]())["y"]
    found = [found] if isinstance(found, torch.Tensor) else [*found]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one.reshape(other.shape), other, rtol=1e-4, atol=1e-4)
