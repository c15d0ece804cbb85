"""The page `docs/reference/forms.md`: read by the tests, written by `python tests/forms/page.py` (`make forms`)."""

from __future__ import annotations

import torch

import setting  # sets the paths of imports
from architectures import MODELS
from forms import FORMS, Model

COLUMNS = ["eager", *FORMS]

TEXT = """\
# One model, several forms

The same path names the same value in every form of a model. Six small models with random weights (`tests/forms/architectures.py`), and
how many of eager's operations each form has under eager's path:

{table}

| form | what it is | zero at each shared operation gives |
|---|---|---|
| eager | the module itself, `PatchableGraph(model, x)` | the reference |
| TorchScript | `torch.jit.script`, called by a module (below its path `model`) | eager's result, bit for bit |
| compiled | `torch.compile(model, fullgraph=True)`, patched at once: its graph runs operation by operation | eager's result, bit for bit |
| taps | the same code, compiled once more with [taps](../limits.md#compiled-code) where patches stand: what of it has taps | eager's result, to rounding |
| exported | `torch.export.export(model, (x,)).module()` | eager's result, bit for bit |
| AOTInductor | a package of `aoti_compile_and_package`, named by the exported program, loaded and called by a module: the values that it [keeps in memory](../limits.md#models-compiled-ahead) | eager's result, to rounding |
| C++ | the program `bindings/cpp/examples/transformer`, of `torch::nn` modules, under `graphpatch run` | eager's result, bit for bit |

* A form may have more operations than eager: TorchScript writes `x[:, 0]` as two slices, eager as one. The names of the others stay.
* AOTInductor: of the GPT, every linear, matmul, softmax, gelu and layer norm is among them. What is missing was fused into kernels, and its
  node says so. Of Llama less than half is left: its norms and rotations are fused.
* The linear layers of libtorch's C++ API call `t`, `matmul` and `add_` where Python's call `linear`.
* `to` returns its operand where nothing is to be converted. `torch.export` then has the program read the result of `to` wherever the model
  goes on with the operand: of the exported Llama, a zero at the five `to` of its norms reaches more than in eager.
* `torch.compile` leaves a model with an `nn.LSTM` alone as a whole, and what its `forward` calls beside modules is then
  [not seen](../limits.md#compiled-code). Here it is told to compile it: `torch._dynamo.config.allow_rnn = True`.

The table is made by `make forms` and checked by `make test-forms` (torch 2.11), in which every shared operation is zeroed alone.
"""


def rows() -> dict[str, list[str]]:
    """The cells of the page's table, by the model."""
    found = {}
    for line in setting.PAGE.read_text("utf-8").splitlines():
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        if name in MODELS:
            found[name] = cells
    return found


def shared(model: str, column: str) -> int | None:
    """How many operations the page says that a form shares with eager; None where it says that there is no such form."""
    cell = rows()[model][COLUMNS.index(column)]
    return int(cell) if cell else None


def _row(name: str) -> str:
    model = Model(name)
    counts = [str(len(make(model).shared)) if model.has(form) else "" for form, make in FORMS.items()]
    return f"| {' | '.join([name, str(len(model.operations)), *counts])} |"


def main() -> None:
    lines = [f"| model | {' | '.join(COLUMNS)} |", f"|---|{'--:|' * len(COLUMNS)}"]
    with torch.no_grad():
        lines += [_row(name) for name in MODELS]
    setting.PAGE.write_text(TEXT.format(table="\n".join(lines)), "utf-8")


if __name__ == "__main__":
    main()
