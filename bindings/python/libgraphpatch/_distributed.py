"""Values of which each rank of a program holds a part: DTensors, and the plain tensors that they give away
(``to_local``).

A patch means the whole value: every rank changes what lies in its own part, and none has to wait for another. What
torch does to make DTensors, to give away their parts and to send them elsewhere is no operation of the model.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from ._callback import torch_callback
from ._dispatch_key import hidden
from ._imports import after_import
from ._kinds import is_a
from ._library import check, lib
from ._operators import operator
from ._thread import Frame, thread

# What the adapter asks (src/torch/adapter/distributed.cpp, `Question`).
_IS_DISTRIBUTED, _LAYOUT, _ADD, _REPLACE, _SHOW, _GATHER, _TAKE, _LOCAL = range(8)


class _Request(ctypes.Structure):
    """The adapter's ``Request``."""

    _fields_ = [
        ("question", ctypes.c_int64),
        ("like", ctypes.c_void_p),
        ("mask", ctypes.c_void_p),
        ("other", ctypes.c_void_p),
        ("text", ctypes.c_char_p),
    ]


# torch.distributed.tensor._api, when the program has imported it.
_api: Any = None
_installed = False
# The names of the autograd functions by which DTensors are made, sent and given away.
_MOVING = frozenset(("_FromTorchTensor", "_ToTorchTensor", "Redistribute"))


def install() -> None:
    """Sees DTensors from now on, if the program ever uses them. Later calls do nothing."""
    global _installed
    if not _installed and torch.distributed.is_available():
        _installed = True
        after_import("torch.distributed.tensor._api", _see)
        after_import("torch.distributed.fsdp._fully_shard._fsdp_param_group", _see_groups)


def holds(module: Module) -> bool:
    """Whether parameters or buffers below the module are DTensors."""
    install()
    if _api is None:
        return False
    tensors = itertools.chain(module.parameters(), module.buffers())
    return any(isinstance(tensor, _api.DTensor) for tensor in tensors)


def is_moving(function: type) -> bool:
    """Whether an autograd function only moves parts of a DTensor."""
    return _api is not None and function.__name__ in _MOVING and function.__module__.startswith("torch.distributed.")


def _see(api: ModuleType) -> None:
    global _api
    kind = getattr(api, "DTensor", None)
    if kind is None or not hasattr(kind, "to_local") or not hasattr(kind, "_spec"):
        return  # a version of torch that is built differently: its DTensors are refused by torch's own operations
    _api = api
    kind.to_local = _giving(kind.to_local)


def _see_groups(module: ModuleType) -> None:
    """Sees the groups of parameters that FSDP (``fully_shard``) gathers before a module's call, and frees after it."""
    group = getattr(module, "FSDPParamGroup", None)
    for name in ("pre_forward", "post_forward"):
        original = getattr(group, name, None)
        if original is not None:
            setattr(group, name, _gathering(original))


def _gathering(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def gather(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Tells the run which tensors the parameters are from now on. How they are gathered is no part of the model."""
        frame = thread.frame
        if frame is None or torch.compiler.is_compiling():
            return original(self, *args, **kwargs)
        with hidden(True):
            result = original(self, *args, **kwargs)
        if type(frame) is Frame and frame.by_parameter:
            identities = frame.root.identities(frame.tree)
            check(lib.gp_run_parameters(identities, len(identities)))
        return result

    return gather


def tell_adapter() -> None:
    """Has the adapter ask us about DTensors. It must be loaded."""
    if _api is not None:
        operator("distribute")(ctypes.cast(_CALLBACK, ctypes.c_void_p).value)


def _giving(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def to_local(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Notes, inside of a run, that the tensor is this rank's part of a DTensor."""
        local = original(self, *args, **kwargs)
        frame = thread.frame
        if frame is None or torch.compiler.is_compiling():
            return local
        if not all(placement.is_replicate() for placement in self.placements):
            with hidden(True):
                operator("part")(local, _empty_like(self))
            if type(frame) is Frame:
                frame.root.has_parts = True
        return local

    return to_local


def _empty_like(value: Any) -> Tensor:
    """A DTensor of the same placements and global shape that holds no data."""
    empty: Any = _api.DTensor(torch.empty(0, dtype=value.dtype), value._spec, requires_grad=False)
    return empty


def _whole(value: Tensor, like: Any) -> Any:
    """The DTensor of which ``value`` is this rank's part; or itself, if it is one."""
    if like is None:
        return value
    spec = like._spec
    return _from_local(value, spec.mesh, spec.placements, spec.shape, spec.tensor_meta.stride)


def _from_local(local: Tensor, mesh: Any, placements: Any, shape: Any, stride: Any) -> Any:
    return _api.DTensor.from_local(local, mesh, placements, run_check=False, shape=shape, stride=stride)


class _OnFirst(torch.autograd.Function):  # type: ignore[misc]
    """Zeros in the place of a summand that the first rank adds. The gradient of the sum is that of each rank's
    summand."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return torch.zeros_like(values)

    @staticmethod
    def backward(context: Any, gradient: Any) -> Any:
        return gradient


def _part(tensor: Tensor, mesh: Any, placements: Any) -> Tensor:
    """This rank's part of a plain tensor that all ranks have."""
    if tensor.dim() == 0:
        return tensor
    everywhere = [_api.Replicate()] * mesh.ndim
    whole = _from_local(tensor, mesh, everywhere, tensor.shape, tensor.stride())
    sharded = [one if not one.is_partial() else there for one, there in zip(placements, everywhere, strict=True)]
    part: Tensor = whole.redistribute(mesh, sharded).to_local()
    return part


def _summand(values: Tensor, mesh: Any, placements: Any) -> Tensor:
    """What this rank writes so that, after the ranks' values are put together, all have ``values``."""
    for dimension, placement in enumerate(placements):
        if not placement.is_partial():
            continue
        how = getattr(placement, "reduce_op", "") if type(placement).__name__ == "Partial" else ""
        if how not in ("sum", "avg", "max", "min"):
            raise ValueError(f"its placement is {placement!r}, which only the next operation reduces: patch that one")
        if how == "sum" and mesh.get_coordinate()[dimension] != 0:
            return _OnFirst.apply(values)
    return values


def _write(value: Any, mask: Tensor | None, values: Tensor, adds: bool) -> Any:
    spec = value._spec
    mesh, placements = spec.mesh, spec.placements
    if mesh.get_coordinate() is None:  # this rank holds nothing of the value
        return value
    local = value.to_local()
    values = _summand(_part(values, mesh, placements), mesh, placements)
    whole = local.clone().add_(values) if adds else local.clone().copy_(values)
    if mask is not None:
        whole = torch.where(_part(mask, mesh, placements), whole, local)
    made = _from_local(whole, mesh, placements, value.shape, value.stride())
    if not torch.is_grad_enabled() and value.requires_grad and not made.is_inference():
        made.requires_grad_()  # operations look at it even if no gradient is wanted
    return made


def _take(whole: Any, made: Any) -> Any:
    """What a function returned in the place of a DTensor, as a DTensor that is placed like it."""
    spec = whole._spec
    placements = [_api.Replicate() if one.is_partial() else one for one in spec.placements]
    if not isinstance(made, _api.DTensor):
        everywhere = [_api.Replicate()] * spec.mesh.ndim
        made = _from_local(made, spec.mesh, everywhere, made.shape, made.stride())
    if tuple(made.placements) == tuple(spec.placements):
        return made
    moved = made.redistribute(spec.mesh, placements)
    if any(one.is_partial() for one in spec.placements):
        local = _summand(moved.to_local(), spec.mesh, spec.placements)
        moved = _from_local(local, spec.mesh, spec.placements, moved.shape, moved.stride())
    return moved


def on_whole(value: Any, function: Callable[[Any], Any]) -> Any:
    """What ``function`` returns for the value. For a DTensor it is called with the gathered value, on all ranks, and
    what it returns is placed as the DTensor is: torch forgets what is written into a slice of a DTensor."""
    if _api is None or not is_a(value, _api.DTensor):
        return function(value)
    with hidden(True):
        return _take(value, function(value.full_tensor().clone()))


def _layout(value: Any, like: Any) -> bytes:
    spec = (value if like is None else like)._spec
    pairs = zip(spec.placements, spec.mesh.shape, strict=True)
    placed = ", ".join(f"{_name(placement)} of {size}" for placement, size in pairs)
    shape = "" if like is None else f" ({', '.join(str(size) for size in spec.shape)})"
    return f"{'' if like is None else 'part of a '}DTensor{shape}[{placed}]".encode()


def _name(placement: Any) -> str:
    kind = type(placement).__name__
    return f"Shard({placement.dim})" if kind == "Shard" else kind if kind == "Replicate" else repr(placement)


def _answer(request: Any, value: Any) -> Any:
    question = request.question
    tensor_at = operator("tensor_at")
    if question == _IS_DISTRIBUTED:
        return value if is_a(value, _api.DTensor) else None
    like = tensor_at(request.like) if request.like else None
    if question == _LAYOUT:
        if like is not None or is_a(value, _api.DTensor):
            thread.text = request.text = _layout(value, like)
        return None
    whole = _whole(value, like)
    if question == _SHOW:
        return whole
    if question == _LOCAL:
        return whole.to_local()
    if question == _GATHER:
        return whole.full_tensor()
    if question == _TAKE:
        made = _take(whole, tensor_at(request.other))
    else:
        mask = tensor_at(request.mask) if request.mask else None
        made = _write(whole, mask, tensor_at(request.other), question == _ADD)
    return made if like is None else made.to_local()


def _call(request_at: int, address: int) -> Any:
    with hidden(True):
        return _answer(_Request.from_address(request_at), operator("tensor_at")(address))


def _refused(request_at: int, error: BaseException) -> None:
    thread.text = _Request.from_address(request_at).text = f"{type(error).__name__}: {error}".encode()


# The user's pointer is that of a request.
_CALLBACK = torch_callback(_call, _refused)
