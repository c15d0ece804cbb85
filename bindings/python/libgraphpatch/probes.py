"""Patches that only keep values: the last one, or all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedTensorMixin

from ._cell import Keeping, Kept
from ._clone import clone
from ._handle import Handle
from ._limits import is_limited, kept
from ._patch_function import Function
from .patches import Limit, Patch

V = TypeVar("V")


@dataclass(kw_only=True)
class ProbePatch(Patch[V], Generic[V]):
    """Keeps a copy of the last value, on its own device and without its gradient history. ``ProbePatch[Tensor]()``
    tells a type checker what it is.

    >>> with pg.patch({"layers_0.output": (probe := ProbePatch(grad=True))}):
    ...     pg(x).sum().backward()
    >>> probe.activation, probe.grad

    Attributes:
        activation: The copy; None until a run has reached the node. With ``on="grad"``, the gradient.
        grad: With ``grad=True``, set when the probe is made: what comes after the node is computed from
            :attr:`activation`, which stays in the graph of gradients, and its ``.grad`` is there after a backward
            pass. It requires gradients also where no parameter does. None before, and without ``grad=True``.
    """

    keeps_gradient: bool = field(default=False, init=False, repr=False)
    requires_clone: bool = field(default=False, init=False)
    activation: V | None = field(default=None, init=False, compare=False)

    def __init__(
        self,
        *,
        grad: bool = False,
        on: Any = "value",
        rows: Limit = None,
        positions: Limit = None,
        steps: Limit = None,
    ) -> None:
        self.on, self.keeps_gradient, self.requires_clone = on, grad, False
        self.rows, self.positions, self.steps = rows, positions, steps
        if grad and is_limited(self):
            raise ValueError("ProbePatch(grad=True) keeps the whole value: it takes no rows, positions or steps")
        self.path = self.activation = None
        if grad and on == "grad":
            raise ValueError("a probe of gradients has no gradient of its own: give either grad=True or on='grad'")

    def _only_looks(self) -> bool:
        return self._is_own(ProbePatch) and not self.keeps_gradient

    def _changes(self) -> bool:
        return self.keeps_gradient or not _is_keeping(self, ProbePatch)

    def _describe(self, spec: Handle) -> Function | None:
        return Keeping(spec, self) if self._only_looks() else super()._describe(spec)

    def _call_part(self, value: Any, mask: Tensor) -> Any:
        self(kept(mask, value))
        return value

    def __getstate__(self) -> dict[str, Any]:
        """The attributes without the cell. A copy of the probe gets a cell of its own."""
        kept = self.activation
        state = {name: value for name, value in super().__getstate__().items() if name != "_cell"}
        return {**state, "activation": kept}

    @property
    def grad(self) -> Tensor | None:
        kept: Any = self.activation
        return kept.grad if self.keeps_gradient and isinstance(kept, Tensor) else None

    def op(self, original_output: V) -> V:
        if not self.keeps_gradient:
            self.activation = copy_of(original_output)
            return original_output
        value: Any = original_output
        if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
            raise TypeError(f"ProbePatch(grad=True): {_what(value)} has no gradient")
        if not torch.is_grad_enabled():
            raise ValueError("ProbePatch(grad=True): gradients are off in this run")
        kept: Any = value.clone()
        if kept.requires_grad:
            kept.retain_grad()
        else:
            kept.requires_grad_()
        self.activation = kept
        after: Any = kept.clone()  # the model may write into its value later, which must not change the kept one
        return after  # type: ignore[no-any-return]


# The last value lies in the probe's cell until this attribute is read.
ProbePatch.activation = Kept()  # type: ignore[misc]


def _what(value: Any) -> str:
    return f"a {value.dtype} tensor" if isinstance(value, Tensor) else f"a {type(value).__name__}"


@dataclass(kw_only=True)
class RecordPatch(Patch[V], Generic[V]):
    """Keeps a copy of every value, in order, each on its own device and without its gradient history.

    Attributes:
        activations: The copies.
        limit: The largest number of values to keep, if given.
    """

    requires_clone: bool = field(default=False, init=False)
    activations: list[V] = field(default_factory=list, compare=False)
    limit: int | None = None

    def _only_looks(self) -> bool:
        return self._is_own(RecordPatch)

    def _changes(self) -> bool:
        return not _is_keeping(self, RecordPatch)

    def _call_part(self, value: Any, mask: Tensor) -> Any:
        self(kept(mask, value))
        return value

    def op(self, original_output: V) -> V:
        if self.limit is None or len(self.activations) < self.limit:
            self.activations.append(copy_of(original_output))
        return original_output


def _is_keeping(patch: Any, kind: Any) -> bool:
    """Whether the patch does what patches of class ``kind`` do, to the whole value or a part of it."""
    return type(patch).op is kind.op and type(patch).__call__ is Patch.__call__ and patch.on == "value"


def copy_of(value: V) -> V:
    """A copy of a tensor, without its history; any other value itself."""
    copied: Any = _copy_of_tensor(value) if isinstance(value, Tensor) else value
    return copied  # type: ignore[no-any-return]


def _copy_of_tensor(value: Tensor) -> Tensor:
    functions = torch._C._functorch
    while functions.is_functorch_wrapped_tensor(value):  # inside vmap: the whole tensor, with the mapped size first
        mapped = functions.maybe_get_bdim(value)
        value = functions.get_unwrapped(value)
        value = value.movedim(mapped, 0) if mapped >= 0 else value
    with torch._C._DisableFuncTorch():  # the copy must not belong to a transform, as it outlives it
        return clone(value if isinstance(value, UninitializedTensorMixin) else value.detach())
