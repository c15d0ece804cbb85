"""The names that the spellings of each package may use, where the package is installed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import ModuleType
from typing import Any

# Spellings whose result differs for a reason, by the package and the intervention's name.
UNLIKE: dict[tuple[str, str], str] = {}


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
        "patching": __import__("transformer_lens.patching", fromlist=["patching"]),
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
