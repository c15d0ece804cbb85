"""Python functions as patches. The library calls them with a value in the middle of a run, on the thread that runs the
model, perhaps on several threads at once."""

from __future__ import annotations

import ctypes
import itertools
import sys
from collections.abc import Callable
from typing import Any

import torch

from ._callback import torch_callback
from ._clone import clone
from ._handle import Handle
from ._library import check, lib
from ._patch_value import as_tensor
from ._run import COUNTS
from ._structure import tensor_at

# The functions, by the number that the library passes back. An entry lives as long as its patch is registered.
functions: dict[int, Callable[[Any], Any]] = {}
numbers = itertools.count(1)


def _call(number: int, address: int | None) -> torch.Tensor | None:
    """Calls function ``number`` with the tensor at ``address``, or with None. Returns the tensor that takes its place,
    if that is another one."""
    value = tensor_at(address) if address else None
    result = functions[number](value)
    if result is None and value is not None:
        raise TypeError("the function of a patch returned None; return the value, changed or not")
    if result is None or result is value:
        return None
    result = as_tensor(result)
    # The model may write into the value later, which must not change a tensor of the user's. So that is copied.
    if not COUNTS or sys.getrefcount(result) > 2 or _is_shared(result):
        result = clone(result)
    return result


_storage_holders = getattr(torch._C, "_storage_Use_Count", None)


def _is_shared(tensor: torch.Tensor) -> bool:
    """Whether another tensor may share this one's memory. True if that cannot be found out."""
    if type(tensor) is not torch.Tensor or tensor.layout != torch.strided or _storage_holders is None:
        return True
    try:
        storage = tensor.untyped_storage()
    except NotImplementedError:  # a transform (vmap) has wrapped the tensor
        return True
    return bool(_storage_holders(storage._cdata) > 2)  # the tensor, and this storage


_TORCH_CALLBACK = torch_callback(_call)
CALLBACK = ctypes.cast(_TORCH_CALLBACK, ctypes.c_void_p)


class Function:
    """A Python function that a patch calls.

    Args:
        spec: The gp_spec that is made to call it.
    """

    def __init__(self, spec: Handle, function: Callable[[Any], Any]) -> None:
        self._number = next(numbers)
        self._functions = functions  # held here, as the module's names are gone when the interpreter ends
        check(lib.gp_spec_custom_torch(spec, CALLBACK, self._number))
        functions[self._number] = function

    def take_number(self) -> None:
        """The function is for a plain number, which the library hands over as a tensor."""
        self._functions[self._number] = _OfNumber(self._functions[self._number])

    def close(self) -> None:
        """To be called when no run can call the function any more."""
        self._functions.pop(self._number, None)


class _OfNumber:
    """Wraps a function of a plain number as one of a tensor without dimensions."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, value: torch.Tensor | None) -> Any:
        if value is None or value.dim():  # this time it is no plain number
            return self.function(value)
        number = value.item()
        result = self.function(number)
        if result is None or result is number:
            return None if result is None else value
        made = torch.as_tensor(result)
        if made.dim() or not torch.can_cast(made.dtype, value.dtype):
            raise TypeError(f"the function of a patch returned {result!r} for the {type(number).__name__} {number!r}")
        return torch.tensor(made.item() if isinstance(result, torch.Tensor) else result, dtype=value.dtype)
