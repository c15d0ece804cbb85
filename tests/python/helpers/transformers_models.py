"""GPT-2 and Llama with random weights, changes as patches and in plain PyTorch, and hooks that make these changes."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import gpt2_by_hand
import llama_by_hand
from by_hand import At, Edit, Weights
from libgraphpatch import AddPatch, NodePath, Patch, PatchableGraph, ReplacePatch, ZeroPatch

VOCABULARY = 48
BY_HAND: dict[str, ModuleType] = {"gpt2": gpt2_by_hand, "llama": llama_by_hand}


def build(name: str, attention: str) -> nn.Module:
    """Builds a model. Biases and norms are random, too: a bias of 0 or a weight of 1 would hide a lost patch."""
    common = dict(vocab_size=VOCABULARY, attn_implementation=attention, bos_token_id=0, eos_token_id=None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        if name == "gpt2":
            model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=32, n_head=2, n_positions=24, **common))
        else:
            sizes = dict(num_hidden_layers=2, hidden_size=32, intermediate_size=48, max_position_embeddings=24)
            model = LlamaForCausalLM(LlamaConfig(num_attention_heads=2, num_key_value_heads=1, **sizes, **common))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def tokens(batch: int = 1, length: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(1, VOCABULARY - 1, (batch, length), generator=generator)


@dataclass
class Case:
    """A model, the same model written by hand, and its graph."""

    name: str
    attention: str
    model: nn.Module
    pg: PatchableGraph
    paths: list[str]
    bare: dict[str, Tensor]
    """Each value as the model by hand computes it."""
    weights: Weights

    def by_hand(self, edits: dict[str, Edit] | None = None) -> Tensor:
        """The logits of the model by hand, with edits of the values at some paths."""
        at = At(edits)
        logits = BY_HAND[self.name].logits(self.weights, at, self.attention, tokens())
        assert at.done == set(at.edits), "no such line"
        return logits


@functools.cache
def case(name: str, attention: str) -> Case:
    model = build(name, attention)
    pg = PatchableGraph(model, tokens())
    bare: dict[str, Tensor] = {}
    weights = Weights(model)
    with torch.no_grad():
        BY_HAND[name].logits(weights, At(seen=bare), attention, tokens())
    return Case(name, attention, model, pg, [str(leaf) for leaf in tensor_leaves(pg.graph)], bare, weights)


def tensor_leaves(node: NodePath) -> Iterator[NodePath]:
    """All tensors below: inputs, parameters, operations, outputs, and elements of containers among them."""
    for child in node:
        if isinstance(child._shape, torch.Size):
            yield child
        yield from tensor_leaves(child)


def plain(value: Tensor) -> Tensor:
    """A value from inside of vmap as a plain tensor, with the dimension of each vmap in front."""
    return _unwrapped(value)[0]


def _unwrapped(value: Tensor) -> tuple[Tensor, int]:
    functorch = torch._C._functorch
    if not functorch.is_batchedtensor(value):
        return value, 0
    inner, depth = _unwrapped(functorch.get_unwrapped(value))
    return inner.movedim(depth + functorch.maybe_get_bdim(value), depth), depth + 1


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal bit for bit; any NaN equals any other."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    nan = a.isnan() & b.isnan()
    bits = [torch.where(nan, 0, t).contiguous().reshape(-1).view(torch.uint8) for t in (a.detach(), b.detach())]
    return torch.equal(*bits)


@dataclass
class Change:
    """The same change as a patch and as plain PyTorch."""

    kind: str
    index: Any = None
    value: Any = None

    def patch(self) -> Patch[Any]:
        if self.kind == "zero":
            return ZeroPatch(slice=self.index)
        return {"add": AddPatch, "replace": ReplacePatch}[self.kind](value=self.value, slice=self.index)

    def __call__(self, value: Tensor) -> Tensor:
        new, index = value.clone(), ... if self.index is None else self.index
        if self.kind == "add":
            new[index] += self.value
        else:
            new[index] = 0 if self.kind == "zero" else self.value
        return new

    def __str__(self) -> str:
        value = "" if self.value is None else f":{self.value}"
        return f"{self.kind}{value} at {self.index}"


def changes(dtype: torch.dtype) -> list[Change]:
    """Zero, add and replace, of the whole value and of a slice, with values of the dtype that are valid indices."""
    add, replace = (0.5, 0.25) if dtype.is_floating_point else (True, True) if dtype is torch.bool else (1, 3)
    kinds = [("zero", None), ("add", add), ("replace", replace)]
    return [Change(kind, index, value) for index in (None, (..., 0)) for kind, value in kinds]


# The nodes that are inputs or outputs of modules.
IN_OUT = (
    "input",
    "x",
    "hidden_states",
    "attention_mask",
    "position_ids",
    "position_embeddings",
    "cache_position",
    "input_ids",
    "kwargs",
    "output",
)


def is_operation(path: str) -> bool:
    """Whether a leaf is neither an input, nor a parameter or buffer, nor an output."""
    return split(path)[1] not in (*IN_OUT, "weight", "bias", "inv_freq")


# --- hooks ------------------------------------------------------------------------------------------------------------


def in_out(paths: list[str]) -> list[str]:
    """The paths that hooks of modules can reach: inputs and outputs of modules."""
    return [path for path in paths if split(path)[1] in IN_OUT]


def split(path: str) -> tuple[str, str, list[str]]:
    """Scope, node, and the names below it in a container."""
    node, _, dig = path.partition("|")
    scope, _, name = node.rpartition(".")
    return scope, name, dig.split(".") if dig else []


def hook(model: nn.Module, path: str, edit: Edit) -> torch.utils.hooks.RemovableHandle:
    """A forward pre-hook or a forward hook that edits what stands at the path."""
    scope, name, dig = split(path)
    module = model.get_submodule(re.sub(r"\b(h|layers)_(\d+)", r"\1.\2", scope))
    if name == "output":
        return module.register_forward_hook(lambda _module, _args, output: edited(output, dig, edit))
    place = list(inspect.signature(module.forward).parameters).index(name)

    def before(_module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        if name == "kwargs":
            return args, edited(kwargs, dig, edit)
        if place < len(args):
            return (*args[:place], edited(args[place], dig, edit), *args[place + 1 :]), kwargs
        return args, {**kwargs, name: edited(kwargs[name], dig, edit)}

    return module.register_forward_pre_hook(before, with_kwargs=True)


def edited(value: Any, dig: list[str], edit: Edit) -> Any:
    if not dig:
        return edit(value)
    if isinstance(value, tuple):
        index = int(dig[0].removeprefix("sub_"))
        return (*value[:index], edited(value[index], dig[1:], edit), *value[index + 1 :])
    copy = type(value)(**value)  # a dict, or an output of transformers
    copy[dig[0]] = edited(value[dig[0]], dig[1:], edit)
    return copy


def hooked(model: nn.Module, edits: dict[str, Edit], run: Callable[[], Any]) -> Any:
    """What `run` gives while hooks edit the values at these paths."""
    handles = [hook(model, path, edit) for path, edit in edits.items()]
    try:
        return run()
    finally:
        for handle in handles:
            handle.remove()
