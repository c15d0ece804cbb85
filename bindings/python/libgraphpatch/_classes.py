"""Values of a class of their own: a Parameter, or a class of the user's. What a patch puts in the place of such a value
is an object of the same class: the model may ask for it, and a module takes no plain tensor as a parameter."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from ._callback import torch_callback
from ._operators import operator

_plain: Any = Tensor


def in_class_of(before: Tensor, after: Tensor) -> Tensor:
    """``after``, which takes the place of ``before``, in the class of that, with its attributes. A tensor that already
    has a class of its own stays as it is, and so does what replaces a wrapper: wrappers hold other tensors."""
    kind: Any = type(before)
    if kind is Tensor or type(after) is not Tensor or kind.__torch_dispatch__ is not _plain.__torch_dispatch__:
        return after
    try:
        made = after.as_subclass(kind)
    except (NotImplementedError, RuntimeError):  # libtorch gives a sparse or mkldnn tensor no class
        return after
    vars(made).update(vars(before))
    if not torch.is_grad_enabled() and before.requires_grad and made.is_leaf and not made.is_inference():
        made.requires_grad_()
    return made


def _at_addresses(after: int, before: int) -> Tensor:
    """The same for tensors at these addresses."""
    tensor_at = operator("tensor_at")
    return in_class_of(tensor_at(before), tensor_at(after))


_CALLBACK = torch_callback(_at_addresses)
# Whether the adapter has the callback.
_registered = False


def keep_classes() -> None:
    """Has the library call us for results of operations. The adapter must be loaded."""
    global _registered
    if not _registered:
        operator("keep_classes")(ctypes.cast(_CALLBACK, ctypes.c_void_p).value)
        _registered = True
