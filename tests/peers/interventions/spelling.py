"""Interventions that users of other packages know: in libgraphpatch, in plain PyTorch, and in these packages' own words.

The first two are run and compared. The peers' spellings are only counted: they follow the packages' documentation, in their
shortest form.

Names that all of them may use: `model` (GPT-2 with two layers), `H` (its blocks), `x`, `clean`, `corrupted` (token ids),
`metric` (a number of an output), `vector` (a direction), `basis` (two directions), `noise`, `sae` and `lora` (modules). `y` is the result.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Intervention:
    """One intervention. All spellings are source text."""

    kind: str
    name: str
    ours: str
    torch: str
    peers: dict[str, str]


FOUND: list[Intervention] = []


def add(kind: str, name: str, ours: str, torch: str, **peers: str) -> None:
    FOUND.append(Intervention(kind, name, ours, torch, peers))


ATTENTION = "transformer.h_0.attn.softmax"
MLP = "transformer.h_0.mlp.output"
BLOCK = "transformer.h_0.output|sub_0"


def hooked(where: str, change: str) -> str:
    """The spelling in plain PyTorch of a change of one module's output. ``o`` is the output."""
    return f"with {where}.register_forward_hook(lambda m, i, o: {change}):\n    y = model(x).logits"


def lens(where: str, change: str) -> str:
    """A change of an activation in TransformerLens; ``v`` is the activation."""
    return f'y = model.run_with_hooks(x, fwd_hooks=[("{where}", lambda v, hook: {change})])'


def sight(*lines: str) -> str:
    """A trace in nnsight."""
    body = "".join(f"    {line}\n" for line in lines)
    return f"with model.trace(x):\n{body}    y = model.output.logits.save()"


def edited(where: str, change: str) -> str:
    """A change of a module's output in baukit; ``o`` is the output."""
    return f'with Trace(model, "{where}", edit_output=lambda o: {change}):\n    y = model(x).logits'


def pyvene(component: str, kind: str, use: str = "base={'input_ids': x}") -> str:
    return (
        f'config = pv.IntervenableConfig([{{"layer": 0, "component": "{component}", "intervention_type": pv.{kind}}}])\n'
        f"y = pv.IntervenableModel(config, model)({use})[1].logits"
    )
