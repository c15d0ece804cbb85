"""Seven methods of interpretability × four families of models: each result equals that of plain PyTorch with hooks.

`docs/matrix.md` is made of this file: `python tests/python/test_matrix.py` writes it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "matrix.md"
if __name__ == "__main__":
    sys.path.insert(0, str(PAGE.parents[1] / "bindings" / "python"))

from libgraphpatch import AddPatch, PatchableGraph


class Family(NamedTuple):
    """A family of models, and where its parts are."""

    make: Callable[[], nn.Module]
    clean: Tensor
    corrupted: Tensor
    blocks: str  # the attribute path of its list of blocks
    mlp: str  # the path in a block of the module whose output the MLP adds to the residual stream
    unembed: Callable[[nn.Module, Tensor], Tensor]  # logits from a hidden state


SIZES: dict[str, Any] = dict(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24)
CLEAN, CORRUPTED = torch.tensor([[5, 17, 3, 42, 8, 1]]), torch.tensor([[5, 17, 9, 42, 7, 2]])
IMAGES = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8).sin()


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=3, n_head=2, attn_implementation="eager")
    )


def llama() -> nn.Module:
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=50, max_position_embeddings=16, attn_implementation="eager", **SIZES)
    )


def bert() -> nn.Module:
    return BertForMaskedLM(BertConfig(vocab_size=50, max_position_embeddings=16, attn_implementation="eager", **SIZES))


def vit() -> nn.Module:
    return ViTForImageClassification(
        ViTConfig(image_size=8, patch_size=4, num_labels=5, attn_implementation="eager", **SIZES)
    )


FAMILIES = {
    "GPT-2": Family(gpt2, CLEAN, CORRUPTED, "transformer.h", "mlp", lambda m, h: m.lm_head(m.transformer.ln_f(h))),
    "Llama": Family(llama, CLEAN, CORRUPTED, "model.layers", "mlp", lambda m, h: m.lm_head(m.model.norm(h))),
    "BERT": Family(bert, CLEAN, CORRUPTED, "bert.encoder.layer", "output.dense", lambda m, h: m.cls(h)),
    "ViT": Family(
        vit, IMAGES[:1], IMAGES[1:], "vit.encoder.layer", "output.dense", lambda m, h: m.classifier(m.vit.layernorm(h))
    ),
}


def metric(output: Any) -> Tensor:
    logits = output.logits
    return logits.reshape(logits.shape[0], -1, logits.shape[-1])[:, -1, 3].sum()


class Case:
    """A model of a family, its PatchableGraph, and hooks."""

    def __init__(self, family: Family) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.model = family.make().eval()
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.2)
        self.family, self.clean, self.corrupted = family, family.clean, family.corrupted
        self.pg = PatchableGraph(self.model, self.clean)
        self.blocks = self.paths("", self.model.get_submodule(family.blocks))
        self.mlps = self.paths(f".{family.mlp}", self.model.get_submodule(family.blocks))

    def paths(self, part: str, blocks: Any) -> list[tuple[str, nn.Module]]:
        """The node and the module of each block, or of a part of it."""
        found = []
        for number in range(len(blocks)):
            # Every scope has a node `output`, so that a module of that name is called output_1.
            name = f"{self.family.blocks}_{number}{part.replace('.output', '.output_1')}.output"
            node = name if self.pg.graph[name]._shape is not None and not len(self.pg.graph[name]) else f"{name}|sub_0"
            found.append((node, self.model.get_submodule(f"{self.family.blocks}.{number}{part}")))
        return found

    def hooked(self, inputs: Tensor, hooks: dict[nn.Module, Callable[[Tensor], Tensor | None]], **options: Any) -> Any:
        """A plain run, with a function at the output of each of these modules."""

        def hook(function: Callable[[Tensor], Tensor | None]) -> Callable[..., Any]:
            def call(_m: nn.Module, _i: Any, output: Any) -> Any:
                value = function(output if isinstance(output, Tensor) else output[0])
                if value is None:
                    return None
                return value if isinstance(output, Tensor) else (value, *output[1:])

            return call

        handles = [module.register_forward_hook(hook(function)) for module, function in hooks.items()]
        try:
            return self.model(inputs, **options)
        finally:
            for handle in handles:
                handle.remove()

    def kept(self, inputs: Tensor, modules: list[nn.Module]) -> list[Tensor]:
        values: dict[nn.Module, Tensor] = {}
        self.hooked(inputs, {module: lambda value, module=module: values.update({module: value}) for module in modules})
        return [values[module] for module in modules]


Pairs = list[tuple[Tensor, Tensor]]


def logit_lens(case: Case) -> Pairs:
    """The logits of every block's hidden state, as if that block were the last one."""
    cache = case.pg.cache(case.clean, nodes=[node for node, _ in case.blocks])
    lens = [case.family.unembed(case.model, hidden) for hidden in cache.values()]

    plain = case.kept(case.clean, [module for _, module in case.blocks])
    return [(one, case.family.unembed(case.model, hidden)) for one, hidden in zip(lens, plain, strict=True)]


def steering(case: Case) -> Pairs:
    """A vector is added to the residual stream, at the last position of a middle block."""
    node, module = case.blocks[1]
    vector = torch.linspace(-1, 1, 16)
    with case.pg.patch({node: AddPatch(value=vector, slice=(slice(None), -1))}):
        steered = case.pg(case.clean).logits

    def add(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, -1] += vector
        return value

    return [(steered, case.hooked(case.clean, {module: add}).logits)]


def activation_patching(case: Case) -> Pairs:
    """The clean hidden state of one position in the corrupted run."""
    swapped = [case.pg.swap(case.clean, case.corrupted, node, positions=[2]).logits for node, _ in case.blocks]

    clean = case.kept(case.clean, [module for _, module in case.blocks])
    pairs = []
    for result, (_, module), value in zip(swapped, case.blocks, clean, strict=True):

        def restore(hidden: Tensor, value: Tensor = value) -> Tensor:
            hidden = hidden.clone()
            hidden[:, 2] = value[:, 2]
            return hidden

        pairs.append((result, case.hooked(case.corrupted, {module: restore}).logits))
    return pairs


def attribution_patching(case: Case) -> Pairs:
    """The effect of activation patching, estimated by gradients."""
    effects = case.pg.attribute(case.clean, case.corrupted, [node for node, _ in case.blocks], metric=metric)

    modules = [module for _, module in case.blocks]
    clean = case.kept(case.clean, modules)
    corrupted: dict[nn.Module, Tensor] = {}
    output = case.hooked(
        case.corrupted, {module: lambda value, module=module: corrupted.update({module: value}) for module in modules}
    )
    gradients = torch.autograd.grad(metric(output), [corrupted[module] for module in modules])
    plain = [(there - corrupted[m]) * g for there, m, g in zip(clean, modules, gradients, strict=True)]
    return [*zip(effects.values(), plain, strict=True)]


def attention_reading(case: Case) -> Pairs:
    """The attention weights of every block."""
    cache = case.pg.cache(case.clean, nodes=case.pg.graph.find(op="softmax"))

    plain = case.model(case.clean, output_attentions=True).attentions
    return [*zip(cache.values(), plain, strict=True)]


def ablation_sweep(case: Case) -> Pairs:
    """The MLP of every block, zeroed at every position."""
    count = case.pg.graph[case.mlps[0][0]]._shape[1]
    sweep = case.pg.sweep([node for node, _ in case.mlps], case.clean, positions=range(count), metric=metric)

    plain = torch.empty(len(case.mlps), count)
    for row, (_, module) in enumerate(case.mlps):
        for position in range(count):

            def ablate(value: Tensor, position: int = position) -> Tensor:
                value = value.clone()
                value[:, position] = 0
                return value

            with torch.no_grad():
                plain[row, position] = metric(case.hooked(case.clean, {module: ablate}))
    return [(sweep.values, plain)]


def probing(case: Case) -> Pairs:
    """A linear probe, fitted to hidden states to tell positions apart."""
    node, module = case.blocks[1]
    ours = case.pg.cache(case.clean, node)[node][0]

    plain = case.kept(case.clean, [module])[0][0]
    return [(fitted(ours), fitted(plain))]


def fitted(hidden: Tensor) -> Tensor:
    """The weights of a linear probe that tells positions apart."""
    wanted = torch.eye(len(hidden), dtype=torch.float64)
    solution: Tensor = torch.linalg.lstsq(hidden.detach().double(), wanted).solution
    return solution


METHODS = {
    "logit lens": logit_lens,
    "steering": steering,
    "activation patching": activation_patching,
    "attribution patching": attribution_patching,
    "attention reading": attention_reading,
    "ablation sweep": ablation_sweep,
    "probing": probing,
}

_cases: dict[str, Case] = {}


def result(method: str, family: str) -> str:
    """What the page says: `equal`, or how far the largest of the results is off, relative to the reference."""
    if family not in _cases:
        _cases[family] = Case(FAMILIES[family])
    pairs = METHODS[method](_cases[family])
    assert pairs
    worst = 0.0
    for ours, plain in pairs:
        assert ours.shape == plain.shape and ours.dtype == plain.dtype and plain.abs().max() > 0
        worst = max(worst, ((ours - plain).abs().max() / plain.abs().max()).item())
    return "equal" if worst <= 1e-5 else f"off by {worst:.1e}"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_what_plain_pytorch_computes(method: str, family: str) -> None:
    assert result(method, family) == "equal"


def page() -> str:
    head = f"| method | {' | '.join(FAMILIES)} | in libgraphpatch |\n|---|{'---|' * len(FAMILIES)}---|\n"
    rows = ""
    for method, function in METHODS.items():
        ours = inspect.getsource(function).split('"""')[2].split("\n\n")[0]
        lines = len([line for line in ours.splitlines() if line.strip()])
        results = " | ".join(result(method, family) for family in FAMILIES)
        rows += f"| {method} | {results} | {lines} {'line' if lines == 1 else 'lines'} |\n"
    return f"""# Methods and models

Seven methods that people compare tools by, on four families of models: whether the result equals that of plain PyTorch with
hooks, up to 1e-5 of the largest value. Models are small ones of transformers with random weights. The table is made by
`tests/python/test_matrix.py`, which has both forms of every method side by side.

{head}{rows}"""


def test_the_page_is_what_the_table_says() -> None:
    assert PAGE.read_text() == page()


if __name__ == "__main__":
    torch.set_num_threads(1)
    PAGE.write_text(page())
