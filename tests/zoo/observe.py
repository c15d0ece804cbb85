"""Observes and changes calls of a model by PyTorch's own hooks and modes, independently of libgraphpatch."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten
from torch.utils.hooks import RemovableHandle

from values import digest, mapped


@dataclass
class Event:
    """An operation below autograd, and the digests of its results. A composite operation appears as several events."""

    number: int
    """How many operations were called before it."""
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
    number: int = -1
    """How many calls of modules began before it."""
    above: Call | None = None
    output: Any = None
    events: list[Event] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)


def _pictures(value: Any) -> Any:
    with _disable_current_modes():  # the operations below are not part of the model
        return mapped(value, digest, lambda kind, elements: tuple(elements))  # type: ignore[arg-type]


class _Mode(TorchDispatchMode):
    def __init__(self, add: Callable[[Event], None]) -> None:
        super().__init__()
        self.add = add
        self.number = -1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.number += 1
        # The value of an operation that returns nothing is the operand that it wrote into.
        value = result if func._schema.returns else _written(func, args, kwargs or {})
        self.add(Event(self.number, str(func), [digest(leaf) for leaf in tree_leaves(value)]))
        return result


def _bound(module: Module, args: Any, kwargs: Any) -> dict[str, Any]:
    bound = inspect.signature(module.forward).bind(*args, **kwargs)
    bound.apply_defaults()
    return _pictures(dict(bound.arguments))


def observe(run: Callable[[], Any]) -> Call:
    """Observes the one outermost module call in `run`. Replaces Module.__call__, through which all calls go: hooks on a
    model's modules would miss modules that are not registered."""
    open_calls: list[Call] = [Call(Module(), frozenset())]
    call_module = Module.__call__
    begun = 0

    def observed(module: Module, *args: Any, **kwargs: Any) -> Any:
        nonlocal begun
        call = Call(module, _names(module, open_calls), _bound(module, args, kwargs), begun, open_calls[-1])
        begun += 1
        open_calls[-1].calls.append(call)
        open_calls.append(call)
        try:
            output = call_module(module, *args, **kwargs)
        finally:
            open_calls.pop()
        call.output = _pictures(output)
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
    """The attribute paths of a module below the modules whose calls are open. Also the name of its class, which is used
    for a module that is not registered."""
    paths = [
        path for call in around for path, below in call.module.named_modules(remove_duplicate=False) if below is module
    ]
    return frozenset([*paths, type(module).__name__])


# --- changes made by PyTorch's own means ------------------------------------------------------------------------------


def zeroed_output(number: int, run: Callable[[], Any]) -> Any:
    """What `run` gives while a forward hook zeroes all tensors that module call `number` returns. The hook runs
    before the module's other hooks, which see the zeros."""
    handles: list[RemovableHandle] = []

    def zero(_module: Module, _args: Any, output: Any) -> Any:
        handles.pop().remove()
        return mapped(output, torch.zeros_like)

    def begin(module: Module) -> None:
        handles.append(module.register_forward_hook(zero, prepend=True))

    return _at_call(number, begin, run)


def zeroed_input(number: int, name: str, dig: list[str], run: Callable[[], Any]) -> Any:
    """What `run` gives while call `number` of a module gets zero as the tensor at one place of its arguments."""
    call_module = Module.__call__
    count = -1

    def called(module: Module, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            args, kwargs = _with_zero(module, args, kwargs, name, dig)
        return call_module(module, *args, **kwargs)

    Module.__call__ = called  # type: ignore[method-assign]
    try:
        return run()
    finally:
        Module.__call__ = call_module  # type: ignore[method-assign]


def _with_zero(module: Module, args: Any, kwargs: Any, name: str, dig: list[str]) -> tuple[Any, Any]:
    """The arguments of a call, with zero at one place of the named argument."""
    parameters = inspect.signature(module.forward).parameters
    index, kind = list(parameters).index(name), parameters[name].kind
    if kind is inspect.Parameter.VAR_KEYWORD:
        return args, {**kwargs, dig[0]: _zero_at(kwargs[dig[0]], dig[1:])}
    if kind is inspect.Parameter.VAR_POSITIONAL:
        rest = _zero_at(tuple(args[index:]), dig)
        return (*args[:index], *rest), kwargs
    if name in kwargs:
        return args, {**kwargs, name: _zero_at(kwargs[name], dig)}
    return (*args[:index], _zero_at(args[index], dig), *args[index + 1 :]), kwargs


def _zero_at(value: Any, dig: list[str]) -> Any:
    if not dig:
        return torch.zeros_like(value)
    if isinstance(value, (tuple, list)):
        index = int(dig[0].removeprefix("sub_"))
        elements = [_zero_at(old, dig[1:]) if place == index else old for place, old in enumerate(value)]
        return type(value)(*elements) if hasattr(value, "_fields") else type(value)(elements)
    made = copy.copy(value)
    made[dig[0]] = _zero_at(value[dig[0]], dig[1:])
    return made


def zeroed_parameter(number: int, tensor: Tensor, run: Callable[[], Any]) -> Any:
    """What `run` gives while the modules within call `number` of one have zero in the place of that parameter or
    buffer."""
    zero: Tensor = torch.zeros_like(tensor)
    if isinstance(tensor, Parameter):
        zero = Parameter(zero, requires_grad=tensor.requires_grad)
    handles: list[RemovableHandle] = []
    changed: list[tuple[dict[str, Any], str]] = []

    def begin(module: Module) -> None:
        for below in module.modules():
            for held in (below._parameters, below._buffers):
                changed.extend((held, name) for name, value in held.items() if value is tensor)
        for held, name in changed:
            held[name] = zero
        handles.append(module.register_forward_hook(end, always_call=True))

    def end(*_: Any) -> None:
        handles.pop().remove()
        for held, name in changed:
            held[name] = tensor

    return _at_call(number, begin, run)


def zeroed_result(place: tuple[int, int], run: Callable[[], Any]) -> Any:
    """What `run` gives while one result of an operation below autograd is zero. `place` has the numbers of
    operation and result."""
    with _Zero(*place):
        return run()


class _Zero(TorchDispatchMode):
    """Replaces a result by zero. If the result is a view, later writes also go to the memory that it shows."""

    def __init__(self, number: int, result: int) -> None:
        super().__init__()
        self.left, self.result = number, result
        self.zero: Tensor | None = None
        self.shown: Tensor | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        value = func(*args, **(kwargs or {}))
        self.left -= 1
        written = _written(func, args, kwargs or {})
        if self.left == -1 and not func._schema.returns:
            written[self.result].zero_()
            return value
        if self.left == -1:
            leaves, structure = tree_flatten(value)
            leaves[self.result] = self._zeroed(leaves[self.result], args, bool(written))
            return tree_unflatten(leaves, structure)
        if self.zero is not None and self.shown is not None:
            for tensor in written:
                if tensor.untyped_storage().data_ptr() == self.zero.untyped_storage().data_ptr():
                    _in_memory_of(self.shown, tensor).copy_(tensor)
        return value

    def _zeroed(self, value: Tensor, operands: Any, written: bool) -> Tensor:
        if written:
            return value.zero_()
        if value.layout is not torch.strided or not any(
            isinstance(operand, Tensor) and operand.layout is torch.strided and _share(operand, value)
            for operand in tree_leaves(operands)
        ):
            return torch.zeros_like(value)
        memory = value.untyped_storage().clone()
        self.shown = value
        self.zero = torch.empty(0, dtype=value.dtype).set_(memory, value.storage_offset(), value.shape, value.stride())
        return self.zero.zero_()


def _share(left: Tensor, right: Tensor) -> bool:
    return left.untyped_storage().data_ptr() == right.untyped_storage().data_ptr()


def _in_memory_of(shown: Tensor, tensor: Tensor) -> Tensor:
    """A view of the storage of `shown` with the offset, sizes and strides of `tensor`."""
    place = torch.empty(0, dtype=tensor.dtype)
    return place.set_(shown.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> list[Tensor]:
    """The operands that an operation writes into."""
    return [
        operand
        for place, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
        for operand in tree_leaves(args[place] if place < len(args) else kwargs.get(argument.name))
        if isinstance(operand, Tensor)
    ]


def _at_call(number: int, begin: Callable[[Module], None], run: Callable[[], Any]) -> Any:
    count = -1

    def hook(module: Module, _args: Any) -> None:
        nonlocal count
        count += 1
        if count == number:
            begin(module)

    # A hook for all modules, because some modules are created anew for each call.
    handle = register_module_forward_pre_hook(hook)
    try:
        return run()
    finally:
        handle.remove()
