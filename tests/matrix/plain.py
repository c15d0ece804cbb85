"""The seven methods in plain PyTorch, with hooks: what every host's results are compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from families import Family, logits_of, made, metric

POSITION, VECTOR = 2, torch.linspace(-1, 1, 16)


class Plain:
    """A model of a family, and its parts."""

    def __init__(self, family: Family) -> None:
        self.family, self.model = family, made(family)
        blocks: Any = self.model.get_submodule(family.blocks)
        self.blocks: list[nn.Module] = [*blocks]
        self.mlps = [block.get_submodule(family.mlp) for block in blocks]

    def run(self, inputs: Tensor, hooks: dict[nn.Module, Callable[[Tensor], Tensor | None]], **options: Any) -> Any:
        """A run with a function at the output of each of these modules."""

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
        self.run(inputs, {module: lambda value, module=module: values.update({module: value}) for module in modules})
        return [values[module] for module in modules]


def logit_lens(plain: Plain) -> list[Tensor]:
    return [plain.family.unembed(plain.model, hidden) for hidden in plain.kept(plain.family.clean, plain.blocks)]


def steering(plain: Plain) -> list[Tensor]:
    def add(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, -1] += VECTOR
        return value

    return [logits_of(plain.run(plain.family.clean, {plain.blocks[1]: add}))]


def activation_patching(plain: Plain) -> list[Tensor]:
    results = []
    for module, value in zip(plain.blocks, plain.kept(plain.family.clean, plain.blocks), strict=True):

        def restore(hidden: Tensor, value: Tensor = value) -> Tensor:
            hidden = hidden.clone()
            hidden[:, POSITION] = value[:, POSITION]
            return hidden

        results.append(logits_of(plain.run(plain.family.corrupted, {module: restore})))
    return results


def attribution_patching(plain: Plain) -> list[Tensor]:
    clean = plain.kept(plain.family.clean, plain.blocks)
    corrupted: dict[nn.Module, Tensor] = {}
    keep = {module: lambda value, module=module: corrupted.update({module: value}) for module in plain.blocks}
    output = plain.run(plain.family.corrupted, keep)
    gradients = torch.autograd.grad(metric(output), [corrupted[module] for module in plain.blocks])
    return [(there - corrupted[m]) * g for there, m, g in zip(clean, plain.blocks, gradients, strict=True)]


def attention_reading(plain: Plain) -> list[Tensor]:
    return [*plain.model(plain.family.clean, output_attentions=True).attentions]


def ablation_sweep(plain: Plain) -> list[Tensor]:
    count = plain.kept(plain.family.clean, plain.mlps[:1])[0].shape[1]
    found = torch.empty(len(plain.mlps), count)
    for row, module in enumerate(plain.mlps):
        for position in range(count):

            def ablate(value: Tensor, position: int = position) -> Tensor:
                value = value.clone()
                value[:, position] = 0
                return value

            with torch.no_grad():
                found[row, position] = metric(plain.run(plain.family.clean, {module: ablate}))
    return [found]


def probing(plain: Plain) -> list[Tensor]:
    return [fitted(plain.kept(plain.family.clean, [plain.blocks[1]])[0][0])]


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
