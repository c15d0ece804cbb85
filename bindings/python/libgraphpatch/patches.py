"""Patches: what is done to a value. It is set to zero, added to, replaced, or passed to a function of the user's.

A patch is a description, and an object that does what it says: ``patch(tensor)`` applies it to any tensor. It may be
used in any number of ``with pg.patch(...)`` blocks; what is assigned to its ``value`` or ``slice`` inside a block holds
from the next run on. ``slice`` is what stands between the brackets of ``tensor[...]``: integers, slices, ``...``,
``None``, index tensors and boolean masks, alone or in a tuple. No slice means the whole value. Values broadcast to the
slice and are converted, or refused, as PyTorch would.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeAlias, TypeVar

from torch import Tensor

from . import _limits
from ._clone import clone
from ._distributed import on_whole
from ._handle import Handle
from ._index import add_index, as_key
from ._library import check, lib
from ._patch_function import Function
from ._patch_value import patch_value

T = TypeVar("T")
PatchableValue: TypeAlias = Tensor | float | int | bool
Limit: TypeAlias = "int | str | slice[Any, Any, Any] | range | Sequence[int] | Tensor | None"


class Holder(Protocol):
    """An open block that holds a patch."""

    def changed(self) -> None:
        """Called when the patch was changed. Raises ValueError if the change is not possible."""


@dataclass(kw_only=True)
class Patch(Generic[T]):
    """A patch that calls :meth:`op` with the value and puts what it returns in its place. Derive from it, or use
    :class:`CustomPatch`. The library does the other patches itself, except where a derived class has its own
    :meth:`op`.

    Attributes:
        on: ``"value"``, or ``"grad"``: :meth:`op` is then called in the backward pass, with the gradient of the value
            that comes after this node, of the value's shape. A run without gradients raises ValueError.
        rows: The rows of the batch to which the patch is limited: a number, a list of numbers, a range, a slice, or a
            text such as ``"5.."`` or ``"2..6"`` (without 6). With beams, each beam of a text is a row.
        positions: The positions in the text to which it is limited, counted from the first token of the prompt, in
            every call of a generation alike; also ``"prompt"`` or ``"generated"``.
        steps: The steps of a generation to which it is limited. The call with the prompt is step 0.
        requires_clone: :meth:`op` gets a copy, which it may write. Without, it gets the model's own tensor, which it
            must leave as it is.
        path: Where in a container the patch stands in the block that was opened last: what follows the ``|``.
    """

    on: Literal["value", "grad"] = "value"
    rows: Limit = field(default=None, repr=False)
    positions: Limit = field(default=None, repr=False)
    steps: Limit = field(default=None, repr=False)
    requires_clone: bool = field(default=True, init=False)
    path: str | None = field(default=None, init=False, compare=False, repr=False)

    # The attributes that the library knows of a registered patch. If one changes, the patch is registered anew.
    _registered: ClassVar[frozenset[str]] = frozenset(("value", "slice", "on", *_limits.NAMES))

    def op(self, original_output: T) -> T:
        """Returns the value that takes the place of the one that the model computed. Gradients go through it."""
        return original_output

    def __call__(self, target: T) -> T:
        return self.op(target)

    def __setattr__(self, name: str, value: Any) -> None:
        before = vars(self).get(name)
        object.__setattr__(self, name, value)
        if name not in self._registered or "_holders" not in vars(self) or value is before:
            return
        try:
            for holder in [*vars(self)["_holders"]]:
                holder.changed()
        except BaseException:
            object.__setattr__(self, name, before)
            raise

    def __getstate__(self) -> dict[str, Any]:
        """The attributes without the blocks that hold the patch. These belong to this process, and no block holds a
        copy."""
        return {name: value for name, value in vars(self).items() if name != "_holders"}

    def _held(self, holder: Holder, path: str) -> None:
        vars(self).setdefault("_holders", []).append(holder)
        self.path = path.partition("|")[2] or None

    def _let_go(self, holder: Holder) -> None:
        # An earlier call may have removed the holder already, and then have been ended by an exception.
        holders = [other for other in vars(self).pop("_holders", []) if other is not holder]
        if holders:
            vars(self)["_holders"] = holders

    def _is_own(self, kind: type[Patch[Any]]) -> bool:
        """Whether the patch does exactly what patches of class ``kind`` do, to the whole value or slice, so that the
        library can do it itself."""
        own = type(self).op is kind.op and type(self).__call__ is Patch.__call__ and "op" not in vars(self)
        return own and self.on == "value" and not _limits.is_limited(self)

    def _only_looks(self) -> bool:
        """Whether the patch changes nothing that is computed."""
        return False

    def _is_function(self) -> bool:
        """Whether a Python function computes the new value."""
        return not self._only_looks() and not any(self._is_own(kind) for kind in (ZeroPatch, AddPatch, ReplacePatch))

    def _changes(self) -> bool:
        """Whether the patch may put another value in the place of the one it gets."""
        return not self._only_looks()

    def _at_constant(self) -> None:
        """Called when the patch meets a value that has no gradient in the model."""

    def _describe(self, spec: Handle) -> Function | None:
        """Describes in ``spec`` what the patch does. Returns an object that must be kept as long as the patch is
        registered."""
        if self.on not in ("value", "grad"):
            raise ValueError(f"a patch is on 'value' or on 'grad', not on {self.on!r}")
        now = self._as_now()
        if _limits.is_limited(self):
            _limits.check(self)
            return Limited(spec, now)
        return Function(spec, now._show_gradient if now.on == "grad" else now._call)

    def _as_now(self) -> Patch[T]:
        """The patch as it is now, for runs that begin by now: what is assigned to it later holds for later runs. A
        patch of the user's own class may keep something in itself, and so does a probe: these are what they are."""
        return copy.copy(self) if type(self) in (ZeroPatch, AddPatch, ReplacePatch, CustomPatch) else self

    def _call(self, value: Any) -> Any:
        return self(clone(value) if self.requires_clone and isinstance(value, Tensor) else value)

    def _call_part(self, value: Any, mask: Tensor) -> Any:
        """The value with the result of the patch where the mask holds."""
        return _limits.joined(mask, self(clone(value) if isinstance(value, Tensor) else value), value)

    def _show_gradient(self, value: Any, mask: Tensor | None = None) -> Any:
        if not isinstance(value, Tensor) or not value.requires_grad:
            raise ValueError(
                f"{type(self).__name__}(on='grad'): the value has no gradient in this run: gradients are off, or"
                " neither parameters nor inputs before it require them"
            )
        shown = value.clone()  # the copy's gradient comes only from what is computed after this node
        if mask is None:
            shown.register_hook(self._on_gradient)
        else:
            shown.register_hook(lambda gradient: self._on_gradient_part(gradient, mask))
        return shown

    def _on_gradient_part(self, gradient: Tensor, mask: Tensor) -> Tensor:
        after: Tensor = _limits.joined(mask, self._on_gradient(gradient), gradient)
        return after

    def _on_gradient(self, gradient: Tensor) -> Tensor:
        changed: Any = self
        return _as_tensor(changed(gradient.clone() if self.requires_clone else gradient), gradient)


class Limited(Function):
    """The function of a patch that is limited to rows, positions or steps.

    Attributes:
        left: How often it was called with a value of which the patch means nothing.
    """

    def __init__(self, spec: Handle, patch: Patch[Any]) -> None:
        self._patch, self.left = patch, 0
        self._limits = _limits.Limits(patch.rows, patch.positions, patch.steps)
        super().__init__(spec, self._call)

    def _call(self, value: Any) -> Any:
        return on_whole(value, self._call_whole)

    def _call_whole(self, value: Any) -> Any:
        mask = _limits.selected(self._limits, value)
        if mask is None:
            self.left += 1
            return value
        if self._patch.on == "grad":
            return self._patch._show_gradient(value, mask)
        return self._patch._call_part(value, mask)


def _as_tensor(result: Any, gradient: Tensor) -> Tensor:
    if not isinstance(result, Tensor):
        raise TypeError(f"the function of a patch on a gradient returned a {type(result).__name__}, not a tensor")
    if result.shape != gradient.shape:
        raise ValueError(f"a gradient of {tuple(gradient.shape)} cannot become one of {tuple(result.shape)}")
    return result


@dataclass(kw_only=True)
class ZeroPatch(Patch[PatchableValue]):
    """Sets the value, or the slice of it, to zero.

    >>> pg = PatchableGraph(model, x)
    >>> with pg.patch({"layers_0.mlp.output": ZeroPatch(slice=(..., 0))}):
    ...     pg(x)
    """

    slice: Any = None

    def op(self, original_output: PatchableValue) -> PatchableValue:
        """Writes zeros into a tensor and returns it; 0 for a plain number."""
        if not isinstance(original_output, Tensor):
            return type(original_output)(0)
        return on_whole(original_output, self._write)

    def _write(self, tensor: Tensor) -> Tensor:
        tensor[as_key(self.slice)] = 0
        return tensor

    def _describe(self, spec: Handle) -> Function | None:
        if not self._is_own(ZeroPatch):
            return super()._describe(spec)
        add_index(spec, self.slice)
        check(lib.gp_spec_zero(spec))
        return None


@dataclass(kw_only=True)
class AddPatch(Patch[PatchableValue]):
    """Adds ``value`` to the value, or to the slice of it. Gradients reach a ``value`` that requires them."""

    value: PatchableValue
    slice: Any = None

    def op(self, original_output: PatchableValue) -> PatchableValue:
        """Adds into a tensor and returns it; the sum for a plain number."""
        if not isinstance(original_output, Tensor):
            return original_output + self.value
        return on_whole(original_output, self._write)

    def _write(self, tensor: Tensor) -> Tensor:
        tensor[as_key(self.slice)] += self.value
        return tensor

    def _describe(self, spec: Handle) -> Function | None:
        if not self._is_own(AddPatch):
            return super()._describe(spec)
        add_index(spec, self.slice)
        check(lib.gp_spec_add(spec, patch_value(self.value)))
        return None


@dataclass(kw_only=True)
class ReplacePatch(Patch[PatchableValue]):
    """Writes ``value`` in the place of the value, or of the slice of it. Gradients reach a ``value`` that requires
    them."""

    slice: Any = None
    value: PatchableValue

    def op(self, original_output: PatchableValue) -> PatchableValue:
        """Writes into a tensor and returns it; ``value`` itself for a plain number."""
        if not isinstance(original_output, Tensor):
            return self.value
        return on_whole(original_output, self._write)

    def _write(self, tensor: Tensor) -> Tensor:
        tensor[as_key(self.slice)] = self.value
        return tensor

    def _describe(self, spec: Handle) -> Function | None:
        if not self._is_own(ReplacePatch):
            return super()._describe(spec)
        add_index(spec, self.slice)
        check(lib.gp_spec_replace(spec, patch_value(self.value)))
        return None


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
        if self.on == "value" and not _limits.is_limited(self):
            add_index(spec, self.slice)
        return super()._describe(spec)

    def _call_part(self, value: Any, mask: Tensor) -> Any:
        if self.slice is None:
            return super()._call_part(value, mask)
        key, changed = as_key(self.slice), value.clone()
        part: Any = changed[key].clone()
        changed[key] = self(part)
        return _limits.joined(mask, changed, value)

    def _on_gradient(self, gradient: Tensor) -> Tensor:
        if self.slice is None:
            return super()._on_gradient(gradient)
        return on_whole(gradient, self._on_gradient_slice)

    def _on_gradient_slice(self, gradient: Tensor) -> Tensor:
        key, changed = as_key(self.slice), gradient.clone()
        part: Any = changed[key].clone()
        changed[key] = self(part)
        return changed
