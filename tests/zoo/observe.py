"""What happens in a call of a model, as PyTorch's own hooks and modes see it: independent of libgraphpatch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import Module
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from values import digest, mapped


@dataclass
class Event:
    """An operation below autograd, and the digests of its results. What ATen writes as a composite of others is several."""

    operator: str
    results: list[str]


@dataclass
class Call:
    """A call of a module."""

    module: Module
    names: frozenset[str]
    """Those that a graph may call it by."""
    inputs: dict[str, Any] = field(default_factory=dict)
    """By the names of forward's arguments, with digests in the place of tensors."""
    output: Any = None
    number: int = -1
    """How many calls of modules ended before it."""
    events: list[Event] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)


def _pictures(value: Any) -> Any:
    return mapped(value, digest)  # type: ignore[arg-type]


class _Mode(TorchDispatchMode):
    def __init__(self, add: Callable[[Event], None]) -> None:
        super().__init__()
        self.add = add

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.add(Event(str(func), [digest(leaf) for leaf in tree_leaves(result)]))
        return result


def _bound(module: Module, args: Any, kwargs: Any) -> dict[str, Any]:
    bound = inspect.signature(module.forward).bind(*args, **kwargs)
    bound.apply_defaults()
    return _pictures(dict(bound.arguments))


def observe(run: Callable[[], Any]) -> Call:
    """The one outermost call of a module that `run` comes to. Hooks of modules would miss those that are registered
    nowhere, so the place is taken through which all calls go."""
    open_calls: list[Call] = [Call(Module(), frozenset())]
    call_module = Module.__call__
    ended = 0

    def observed(module: Module, *args: Any, **kwargs: Any) -> Any:
        nonlocal ended
        call = Call(module, _names(module, open_calls), _bound(module, args, kwargs))
        open_calls[-1].calls.append(call)
        open_calls.append(call)
        try:
            output = call_module(module, *args, **kwargs)
        finally:
            open_calls.pop()
        call.output, call.number = _pictures(output), ended
        ended += 1
        return output

    Module.__call__ = observed  # type: ignore[method-assign]
    try:
        with _Mode(lambda event: open_calls[-1].events.append(event)):
            run()
    finally:
        Module.__call__ = call_module  # type: ignore[method-assign]
    (call,) = open_calls[0].calls
    return call


def _names(module: Module, around: list[Call]) -> frozenset[str]:
    """The attribute paths of a module below those whose calls are around its own; also the name of its class, for one
    that hangs nowhere."""
    paths = [
        path for call in around for path, below in call.module.named_modules(remove_duplicate=False) if below is module
    ]
    return frozenset([*paths, type(module).__name__])


def zeroed(number: int, run: Callable[[], Any]) -> Any:
    """What `run` gives while a forward hook sets all tensors to zero that call `number` of a module returns."""
    count = -1

    def hook(_module: Module, _args: Any, output: Any) -> Any:
        nonlocal count
        count += 1
        return mapped(output, torch.zeros_like) if count == number else None

    # Of all modules: some are made anew for each call.
    handle = register_module_forward_hook(hook)
    try:
        return run()
    finally:
        handle.remove()
