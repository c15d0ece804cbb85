"""Seven methods of interpretability × four families of models × every host: each result equals that of plain PyTorch with
hooks, or the host refuses the method. `FAMILIES='GPT-2 ViT'` and `HOSTS='eager C++'` choose some, and `COMPILER=inductor` has
torch.compile make code, which is slower."""

from __future__ import annotations

import pytest

from families import FAMILIES
from page import cell
from results import HOSTS, METHODS, chosen, result


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("host", chosen("HOSTS", [*HOSTS]))
@pytest.mark.parametrize("family", chosen("FAMILIES", [*FAMILIES]))
def test_a_method_is_what_plain_pytorch_computes(method: str, family: str, host: str) -> None:
    found = result(method, family, host)
    assert found in ("equal", "refused") and found == cell(method, family, host)
