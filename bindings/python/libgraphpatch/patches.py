"""What is done to a value: zero, add, replace, probe, record, and functions of one's own.

A patch is a description; it may be used in any number of ``with pg.patch(...)`` blocks. ``slice`` is what stands
between the brackets of ``tensor[...]``: integers, slices, ``...``, ``None``, index tensors and boolean masks, alone or
in a tuple. No slice means the whole value. Values broadcast to the slice and are converted, or refused, as PyTorch
would.
"""

from __future__ import annotations

import ctypes
import itertools
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Generic, List, Optional, TypeVar, Union

import torch

from . import _calls
from ._abi import check, lib, made
from ._index import add_index
from ._structure import tensor_at

Tensor = torch.Tensor
T = TypeVar("T")
PatchableValue = Union[Tensor, float, int, bool]


@dataclass(kw_only=True)
class Patch(Generic[T]):
    """A patch that calls :meth:`op` with the value and puts what it returns in its place. Derive from it, or use
    :class:`CustomPatch`; the other patches are done by the library itself.

    Attributes:
        requires_clone: :meth:`op` gets a copy, which it may write. Without, it gets the model's own tensor, which it
            must leave as it is.
    """

    requires_clone: bool = field(default=True, init=False)

    def op(self, original_output: T) -> T:
        """The value for the one that the model computed. Gradients go through."""
        return original_output

    def __call__(self, target: T) -> T:
        return self.op(target)

    def _describe(self, spec: int) -> Any:
        """Makes ``spec`` say what the patch does. Returns what has to live as long as it is registered."""
        return Function(spec, self._call)

    def _call(self, value: Any) -> Any:
        return self.op(value.clone() if self.requires_clone and isinstance(value, Tensor) else value)


@dataclass(kw_only=True)
class ZeroPatch(Patch[PatchableValue]):
    """Sets the value, or the slice of it, to zero.

    >>> pg = PatchableGraph(model, x)
    >>> with pg.patch({"layers_0.mlp.output": ZeroPatch(slice=(..., 0))}):
    ...     pg(x)
    """

    slice: Any = None

    def _describe(self, spec: int) -> Any:
        add_index(spec, self.slice)
        check(lib.gp_spec_zero(spec))


@dataclass(kw_only=True)
class AddPatch(Patch[PatchableValue]):
    """Adds ``value`` to the value, or to the slice of it. Gradients reach a ``value`` that requires them."""

    value: PatchableValue
    slice: Any = None

    def _describe(self, spec: int) -> Any:
        add_index(spec, self.slice)
        with _Value(self.value) as value:
            check(lib.gp_spec_add(spec, value))


@dataclass(kw_only=True)
class ReplacePatch(Patch[PatchableValue]):
    """Writes ``value`` in the place of the value, or of the slice of it. Gradients reach a ``value`` that requires
    them."""

    slice: Any = None
    value: PatchableValue

    def _describe(self, spec: int) -> Any:
        add_index(spec, self.slice)
        with _Value(self.value) as value:
            check(lib.gp_spec_replace(spec, value))


@dataclass(kw_only=True)
class ProbePatch(Patch[PatchableValue]):
    """Keeps a copy of the last value, on its own device and without its gradient history.

    Attributes:
        activation: The copy; None as long as no run came by.
    """

    requires_clone: bool = field(default=False, init=False)
    activation: Optional[PatchableValue] = field(default=None, init=False, compare=False)

    def op(self, original_output: PatchableValue) -> PatchableValue:
        self.activation = _copy(original_output)
        return original_output


@dataclass(kw_only=True)
class RecordPatch(Patch[PatchableValue]):
    """Keeps a copy of every value, in order, each on its own device and without its gradient history.

    Attributes:
        activations: The copies.
        limit: No more than so many are kept, if given.
    """

    requires_clone: bool = field(default=False, init=False)
    activations: List[PatchableValue] = field(default_factory=list, compare=False)
    limit: Optional[int] = None

    def op(self, original_output: PatchableValue) -> PatchableValue:
        if self.limit is None or len(self.activations) < self.limit:
            self.activations.append(_copy(original_output))
        return original_output


@dataclass(kw_only=True)
class CustomPatch(Patch[T]):
    """Calls ``custom_op`` with the value, or the slice of it, and puts what it returns in its place. Gradients go
    through.

    >>> with pg.patch({"layers_1.mlp.output": CustomPatch(custom_op=lambda t: t.clamp(-1, 1))}):
    ...     pg(x)
    """

    custom_op: Callable[[T], T]
    slice: Any = None
    requires_clone: bool = field(default=True)

    def op(self, original_output: T) -> T:
        return self.custom_op(original_output)

    def _describe(self, spec: int) -> Any:
        add_index(spec, self.slice)
        return super()._describe(spec)


def _copy(value: PatchableValue) -> PatchableValue:
    if not isinstance(value, Tensor):
        return value
    functions = torch._C._functorch
    while functions.is_functorch_wrapped_tensor(value):  # inside vmap, say: all of it, the mapped sizes in front
        mapped = functions.maybe_get_bdim(value)
        value = functions.get_unwrapped(value)
        value = value.movedim(mapped, 0) if mapped >= 0 else value
    return value.detach().clone()


class _Value:
    """A patch's value as the library's, for a ``with`` block."""

    def __init__(self, value: Any) -> None:
        if isinstance(value, bool):
            self.handle = made(lib.gp_value_text, b"true" if value else b"false")
        elif isinstance(value, int) and -(2**63) <= value < 2**63:
            self.handle = made(lib.gp_value_int, value)
        elif isinstance(value, float):
            self.handle = made(lib.gp_value_float, value)
        elif isinstance(value, complex):
            self.handle = made(lib.gp_value_text, f"{value.real!r}{value.imag:+}j".encode())
        else:
            self.tensor = _tensor(value)
            self.handle = made(lib.gp_value_torch, self.tensor._cdata)

    def __enter__(self) -> int:
        return self.handle

    def __exit__(self, *_: Any) -> None:
        lib.gp_value_free(self.handle)


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as why:
        refused = f"a {type(value).__name__} is no value of a patch: give a number or a tensor ({why})"
        raise ValueError(refused) from None


# --- functions --------------------------------------------------------------------------------------------------------

# By the number that the library hands back. An entry lives as long as its patch is registered.
_functions: Dict[int, Callable[[Any], Any]] = {}
_numbers = itertools.count(1)


@ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p))
def _call_function(number: int, address: int, replacement: Any) -> int:
    """gp_torch_callback: models that the function calls are no part of the run."""
    thread = _calls.thread
    frame, apart, thread.frame, thread.apart = thread.frame, thread.apart, None, True
    try:
        value = tensor_at(address) if address else None
        result = _functions[number](value)
        if result is None and value is not None:
            raise TypeError("the function of a patch returned None; return the value, changed or not")
        if result is not None and result is not value:
            result = _tensor(result)
            replacement[0] = result._cdata
            thread.held = result
        return 0
    except BaseException as error:  # it goes on in Python, behind libtorch
        thread.error = error
        return 1
    finally:
        thread.frame, thread.apart = frame, apart


class Function:
    """A Python function as a patch's; :meth:`close` when no run can call it any more."""

    def __init__(self, spec: int, function: Callable[[Any], Any]) -> None:
        self.number = next(_numbers)
        check(lib.gp_spec_custom_torch(spec, ctypes.cast(_call_function, ctypes.c_void_p), self.number))
        _functions[self.number] = function

    def take_number(self) -> None:
        """The function is for a plain number, which the library hands over as a tensor."""
        _functions[self.number] = _OfNumber(_functions[self.number])

    def close(self) -> None:
        _functions.pop(self.number, None)


class _OfNumber:
    """A function of a plain number as one of a tensor without sizes."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, value: Tensor) -> Any:
        if value is None or value.dim():  # this time it is no plain number
            return self.function(value)
        number = value.item()
        result = self.function(number)
        if result is None or result is number:
            return None if result is None else value
        made = torch.as_tensor(result)
        if made.dim() or not torch.can_cast(made.dtype, value.dtype):
            raise TypeError(f"the function of a patch returned {result!r} for the {type(number).__name__} {number!r}")
        return torch.tensor(made.item() if isinstance(result, Tensor) else result, dtype=value.dtype)
