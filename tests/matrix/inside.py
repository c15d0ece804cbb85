"""The hosts in this process: four forms of a model, each behind a `PatchableGraph`; and the seven methods there."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from families import Family, logits_of, made, metric
from held import Holder
from libgraphpatch import AddPatch, PatchableGraph
from plain import POSITION, VECTOR, fitted


class Logits(nn.Module):
    """Returns tensors alone, which is what can be traced and exported."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.model, self.mask = made(family), family.mask

    def forward(self, x: Tensor) -> Tensor:
        return logits_of(self.model(x) if self.mask is None else self.model(x, attention_mask=self.mask))


def traced(family: Family) -> Any:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, about sizes that it takes as constants
        return torch.jit.trace(Logits(family).eval(), (family.clean,), check_trace=False)


def eager(family: Family) -> tuple[nn.Module, str]:
    return made(family), ""


def compiled(family: Family) -> tuple[Any, str]:
    return torch.compile(made(family), backend=os.environ.get("COMPILER", "aot_eager")), ""


def exported(family: Family) -> tuple[nn.Module, str]:
    return torch.export.export(Logits(family), (family.clean,)).module(), "model."


def scripted(family: Family) -> tuple[nn.Module, str]:
    return Holder(traced(family)), "model.model."


FORMS: dict[str, Callable[[Family], tuple[Any, str]]] = {
    "eager": eager,
    "compiled": compiled,
    "exported": exported,
    "TorchScript": scripted,
}


class Inside:
    """A form of a family's model, and the paths of its parts."""

    def __init__(self, family: Family, form: str) -> None:
        self.family, self.clean, self.corrupted, self.model = family, family.clean, family.corrupted, made(family)
        module, self.before = FORMS[form](family)
        self.pg = PatchableGraph(module, self.clean)
        count = len([*self.model.get_submodule(family.blocks).children()])
        self.blocks = [self.path(number, "") for number in range(count)]
        self.mlps = [self.path(number, f".{family.mlp}") for number in range(count)]
        self.attentions = [str(path) for path in self.pg.graph.find(op="softmax")]

    def path(self, number: int, part: str) -> str:
        """The node of a block's output, or of a part of it."""
        # Every scope has a node `output`, so that a module of that name is called output_1.
        name = f"{self.before}{self.family.blocks}_{number}{part.replace('.output', '.output_1')}.output"
        return f"{name}|sub_0" if len(self.pg.graph[name]) else name


def logit_lens(host: Inside) -> list[Tensor]:
    """The logits of every block's hidden state, as if that block were the last one."""
    cache = host.pg.cache(host.clean, nodes=host.blocks)
    return [host.family.unembed(host.model, hidden) for hidden in cache.values()]


def steering(host: Inside) -> list[Tensor]:
    """A vector is added to the residual stream, at the last position of a middle block."""
    with host.pg.patch({host.blocks[1]: AddPatch(value=VECTOR, slice=(slice(None), -1))}):
        return [logits_of(host.pg(host.clean))]


def activation_patching(host: Inside) -> list[Tensor]:
    """The clean hidden state of one position in the corrupted run."""
    swap = host.pg.swap
    return [logits_of(swap(host.clean, host.corrupted, node, positions=[POSITION])) for node in host.blocks]


def attribution_patching(host: Inside) -> list[Tensor]:
    """The effect of activation patching, estimated by gradients."""
    return [*host.pg.attribute(host.clean, host.corrupted, host.blocks, metric=metric).values()]


def attention_reading(host: Inside) -> list[Tensor]:
    """The attention weights of every block."""
    return [*host.pg.cache(host.clean, nodes=host.attentions).values()]


def ablation_sweep(host: Inside) -> list[Tensor]:
    """The MLP of every block, zeroed at every position."""
    count = host.pg.graph[host.mlps[0]]._shape[1]
    return [host.pg.sweep(host.mlps, host.clean, positions=range(count), metric=metric).values]


def probing(host: Inside) -> list[Tensor]:
    """A linear probe, fitted to hidden states to tell positions apart."""
    return [fitted(host.pg.cache(host.clean, host.blocks[1])[host.blocks[1]][0])]


METHODS = {
    "logit lens": logit_lens,
    "steering": steering,
    "activation patching": activation_patching,
    "attribution patching": attribution_patching,
    "attention reading": attention_reading,
    "ablation sweep": ablation_sweep,
    "probing": probing,
}
