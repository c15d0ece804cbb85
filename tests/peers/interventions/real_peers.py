"""The names that the spellings of each package may use, where the package is installed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import ModuleType
from typing import Any

# Parts of spellings that cannot be run on this model, with the reason.
NEEDS = {
    "tracer.invoke": "several invokes need nnsight's LanguageModel, which needs a tokenizer",
    "model.generate": "it needs nnsight's LanguageModel, which needs a tokenizer",
    "source.nn_functional_softmax_0": "the operation's name in nnsight depends on the version of transformers",
    ".grad = 0": "a gradient of nnsight is set inside of its backward block since 0.5",
    "model.edit()": "an edited model of nnsight computes the same output as it was here",
    "for h in reversed(hidden)": "nnsight has no block for the backward of a metric that keeps nothing else",
}


def why_not(peer: str, spelling: str) -> str | None:
    """Why a spelling is not run; None if it is."""
    if peer == "TorchLens":
        return "it is spelled for TorchLens before 2.0"
    reasons = (why for part, why in NEEDS.items() if peer == "nnsight" and part in spelling)
    return next(reasons, None)


def namespace(peer: str, module: ModuleType, scene: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """Makes the names of one spelling, from those of the scene. Each has a model of its own, since spellings may leave hooks
    behind."""
    return lambda: {**scene, **NAMES[peer](module, copy.deepcopy(scene["model"]), scene)}


def nnsight(module: Any, model: Any, scene: dict[str, Any]) -> dict[str, Any]:
    return {"model": module.NNsight(model), "H": model.transformer.h}


def transformer_lens(module: Any, model: Any, scene: dict[str, Any]) -> dict[str, Any]:
    """The same weights, as they are: no LayerNorm folded, nothing centered."""
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    config = module.HookedTransformerConfig(
        n_layers=2,
        d_model=32,
        d_head=16,
        n_heads=2,
        n_ctx=24,
        d_vocab=48,
        act_fn="gelu_new",
        normalization_type="LN",
        device="cpu",
    )
    lens = module.HookedTransformer(config)
    lens.load_state_dict(convert_gpt2_weights(model, config), strict=False)
    return {
        "model": lens.eval(),
        "metric": lambda logits: logits[:, -1, 7].sum(),
    }


def pyvene(module: Any, model: Any, scene: dict[str, Any]) -> dict[str, Any]:
    return {"pv": module, "model": model}


def baukit(module: Any, model: Any, scene: dict[str, Any]) -> dict[str, Any]:
    return {"Trace": module.Trace, "TraceDict": module.TraceDict, "model": model}


def torchlens(module: Any, model: Any, scene: dict[str, Any]) -> dict[str, Any]:
    return {"tl": module, "model": model}


NAMES: dict[str, Callable[[Any, Any, dict[str, Any]], dict[str, Any]]] = {
    "nnsight": nnsight,
    "TransformerLens": transformer_lens,
    "pyvene": pyvene,
    "baukit": baukit,
    "TorchLens": torchlens,
}
