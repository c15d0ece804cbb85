"""Each intervention gives what plain PyTorch gives, and none is longer than its shortest spelling in another package.

`docs/interventions.md` is made of this: `python tests/peers/test_interventions.py` writes it.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "interventions.md"
sys.path.insert(0, str(Path(__file__).resolve().parent / "interventions"))
sys.path.insert(0, str(ROOT / "bindings" / "python"))

import ablations
import exchanges
import readings
import replacements
import torch
from scene import scene
from spelling import FOUND, Intervention
from torch import Tensor

MODULES = (readings, ablations, replacements, exchanges)  # each adds to FOUND
KINDS = ("read", "gradients", "ablate", "change", "exchange", "hold")
FOUND.sort(key=lambda each: KINDS.index(each.kind))
PEERS = ("nnsight", "TransformerLens", "pyvene", "baukit", "TorchLens")


def lines(source: str) -> int:
    """How many statements there are; the layout does not count."""
    return sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse(source)))


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    return scene()


def result(source: str, names: dict[str, Any]) -> list[Tensor]:
    own = dict(names)
    exec(source, own)
    found = own["y"]
    return [found] if isinstance(found, Tensor) else [*found]


def known(intervention: Intervention) -> str:
    return f"{intervention.kind}: {intervention.name}"


@pytest.mark.parametrize("intervention", FOUND, ids=known)
def test_the_result_is_that_of_plain_pytorch(intervention: Intervention, names: dict[str, Any]) -> None:
    ours, expected = result(intervention.ours, names), result(intervention.torch, names)
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)
    bare = [names["model"](names["x"]).logits]
    if intervention.kind in ("ablate", "change"):  # it does something, and leaves nothing behind
        assert not torch.allclose(ours[0], bare[0], rtol=1e-3, atol=1e-3)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in names["model"].modules())


@pytest.mark.parametrize("intervention", FOUND, ids=known)
def test_none_is_longer_than_a_peers(intervention: Intervention) -> None:
    assert set(intervention.peers) <= set(PEERS)
    for name, source in {**intervention.peers, "PyTorch": intervention.torch}.items():
        assert lines(intervention.ours) <= lines(source), name


def page() -> str:
    said = [
        "# Interventions, and how long they are",
        "",
        "This page is a collection to copy from: find the row that is like your experiment, and take its code from the second part.",
        "",
        "The code uses these names: `model` is a GPT-2 (here one of two layers with random weights), `H` its blocks, `pg` is",
        "`PatchableGraph(model, x)`. `x`, `clean` and `corrupted` are token ids, `metric` makes a number of an output, `vector`, `noise` and",
        "`basis` are tensors, `sae` and `lora` are modules. The result is `y`.",
        "",
        f"{len(FOUND)} interventions: what libgraphpatch gives equals, up to 1e-5, what plain PyTorch gives with hooks. Columns "
        "count statements, of",
        "the same intervention in PyTorch and in five packages; `–` stands where none is given.",
        "What is made once is not counted: a `PatchableGraph`, nnsight's or TransformerLens's model. The packages' own spellings",
        "are written after their documentation; `make peers` runs them. `tests/peers/test_interventions.py` compares, counts, and makes "
        "this page.",
        "",
        f"| intervention | libgraphpatch | PyTorch | {' | '.join(PEERS)} |",
        f"|---|---|---|{'---|' * len(PEERS)}",
    ]
    for each in FOUND:
        counts = [str(lines(each.peers[peer])) if peer in each.peers else "–" for peer in PEERS]
        said.append(f"| {known(each)} | {lines(each.ours)} | {lines(each.torch)} | {' | '.join(counts)} |")
    said += ["", "## In libgraphpatch", ""]
    for each in FOUND:
        said += [f"**{known(each)}**", "", "```py", each.ours, "```", ""]
    return "\n".join(said).rstrip() + "\n"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python tests/peers/test_interventions.py"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
