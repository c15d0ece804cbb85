"""What is done to a value: zero, add, replace, probe, record, and functions of one's own.

A patch is a description; it may be used in any number of ``with pg.patch(...)`` blocks. ``slice`` is what stands
between the brackets of ``tensor[...]``: integers, slices, ``...``, ``None``, index tensors and boolean masks, alone or
in a tuple. No slice means the whole value. Values broadcast to the slice and are converted, or refused, as PyTorch
would.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

import torch
from torch import Tensor

from ._index import add_index
from ._library import Handle, check, lib
from ._patch_function import Function
from ._patch_value import patch_value

T = TypeVar("T")
PatchableValue: TypeAlias = Tensor | float | int | bool


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

    def _describe(self, spec: Handle) -> Function | None:
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

    def _describe(self, spec: Handle) -> Function | None:
        add_index(spec, self.slice)
        check(lib.gp_spec_zero(spec))
        return None


@dataclass(kw_only=True)
class AddPatch(Patch[PatchableValue]):
    """Adds ``value`` to the value, or to the slice of it. Gradients reach a ``value`` that requires them."""

    value: PatchableValue
    slice: Any = None

    def _describe(self, spec: Handle) -> Function | None:
        add_index(spec, self.slice)
        check(lib.gp_spec_add(spec, patch_value(self.value)))
        return None


@dataclass(kw_only=True)
class ReplacePatch(Patch[PatchableValue]):
    """Writes ``value`` in the place of the value, or of the slice of it. Gradients reach a ``value`` that requires
    them."""

    slice: Any = None
    value: PatchableValue

    def _describe(self, spec: Handle) -> Function | None:
        add_index(spec, self.slice)
        check(lib.gp_spec_replace(spec, patch_value(self.value)))
        return None


@dataclass(kw_only=True)
class ProbePatch(Patch[PatchableValue]):
    """Keeps a copy of the last value, on its own device and without its gradient history.

    Attributes:
        activation: The copy; None as long as no run came by.
    """

    requires_clone: bool = field(default=False, init=False)
    activation: PatchableValue | None = field(default=None, init=False, compare=False)

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
    activations: list[PatchableValue] = field(default_factory=list, compare=False)
    limit: int | None = None

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

    def _describe(self, spec: Handle) -> Function | None:
        add_index(spec, self.slice)
        return super()._describe(spec)


def _copy(value: PatchableValue) -> PatchableValue:
    return _copy_of_tensor(value) if isinstance(value, Tensor) else value


def _copy_of_tensor(value: Tensor) -> Tensor:
    functions = torch._C._functorch
    while functions.is_functorch_wrapped_tensor(value):  # inside vmap, say: all of it, the mapped sizes in front
        mapped = functions.maybe_get_bdim(value)
        value = functions.get_unwrapped(value)
        value = value.movedim(mapped, 0) if mapped >= 0 else value
    with torch._C._DisableFuncTorch():  # the copy is not to belong to a transform, which ends before it
        value = value.detach()
        try:
            return value.clone()
        except NotImplementedError:  # a dtype of fewer than eight bits, which libtorch only stores
            return value.view(torch.uint8).clone().view(value.dtype)
