"""The Python of the package's README and of its page in docs does what it says, on a small GPT-2 with random weights."""

import re
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from checkout import ROOT


@pytest.mark.parametrize("page", ["bindings/python/README.md", "docs/reference/python.md"])
def test_the_snippet(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), flags=re.M | re.S)
    model = GPT2LMHeadModel(GPT2Config(n_layer=4, n_head=2, n_embd=8, vocab_size=50, n_positions=16)).eval()
    inputs = {"input_ids": torch.arange(5)[None], "attention_mask": torch.ones(1, 5, dtype=torch.long)}
    bare, seen = model(**inputs).logits, {}
    (layer,) = set(re.findall(r"h_(\d)\.mlp\.output", block))
    mlp = model.transformer.h[int(layer)].mlp

    def zero(_module: torch.nn.Module, _inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        seen["before"] = output.clone()
        output = output.clone()
        output[..., 0] = 0
        return output

    hook = mlp.register_forward_hook(zero)
    expected = model(**inputs).logits
    hook.remove()
    names = {"model": model, "inputs": inputs}
    exec(compile(block, str(Path(page)), "exec"), names)
    assert torch.equal(names["patched"].logits, expected) and not torch.equal(expected, bare)
    assert torch.equal(names["probe"].activation, seen["before"])
    assert capsys.readouterr().out.startswith("tensor(")
