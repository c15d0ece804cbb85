"""Patches that change the flow of a run and not a value: they end it early, or skip a call."""

from __future__ import annotations

import copy
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from torch import Tensor
from torch.nn import Module

from ._forward_scope import direct_call
from ._handle import Handle
from ._limits import is_limited
from ._locks import new_lock
from ._patch_function import Function
from ._signature import Signature
from ._threads import local
from .errors import Stopped
from .patches import Patch


@dataclass(kw_only=True)
class StopPatch(Patch[Any]):
    """Ends the run at its node: nothing after the node is computed. The run ends by an exception, :class:`Stopped`,
    which the block ``with pg.patch(...)`` catches. So code in the block that follows the call is not executed either.

    >>> with pg.patch({"layers_0.output": [probe := ProbePatch(), StopPatch()]}):
    ...     pg(x)
    """

    requires_clone: bool = field(default=False, init=False)

    def op(self, original_output: Any) -> NoReturn:
        raise Stopped(self)


@dataclass(kw_only=True)
class SkipPatch(Patch[Any]):
    """Skips the call of a module: its forward is not run, and the call returns ``value``. The patch is placed at a
    scope, such as ``"layers_2"``, or at the scope's output.

    >>> with pg.patch({"layers_2": SkipPatch(value="hidden_states")}):
    ...     pg(x)

    If the module returned a tuple when it was recorded, and ``value`` is not a tuple, the call returns a tuple of the
    same length with ``value`` first and None for the rest. The call's arguments are as earlier patches have left them.
    Hooks of the user's on the module are called.

    Attributes:
        value: The name of one of the arguments of the module's forward; or a function, which is called with the
            call's arguments; or the value itself.
    """

    value: str | Tensor | Callable[..., Any] | Any
    requires_clone: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if is_limited(self):
            raise ValueError(f"{type(self).__name__} skips a whole call: it takes no rows, positions or steps")

    def _as_now(self) -> SkipPatch:
        return copy.copy(self) if type(self) in (SkipPatch, KeepPatch) else self


@dataclass(kw_only=True)
class KeepPatch(SkipPatch):
    """Placed as a :class:`SkipPatch` is, but the call does happen, unless another patch skips it. ``kept`` is called
    with what the call returned, before any patch of its output."""

    value: Any = None
    kept: Callable[[Any], None]


class Skipping(Patch[Any]):
    """A :class:`SkipPatch` at one scope. It is registered at one of the scope's inputs. When a run reaches that input,
    the module's forward, which is called right after that on the same thread, skips the call.

    While it is open, the module's ``forward`` is replaced on the object.

    Args:
        length: The length of the tuple that the module returned when it was recorded; None for any other value.
    """

    def __init__(self, patch: SkipPatch, module: Module, length: int | None) -> None:
        super().__init__()
        self.requires_clone = False
        self.patch, self.module, self.length = patch, module, length
        self.before: Skipping | None = None  # what a KeepPatch found at the same call
        self.last = object()  # stands for the one of the patches that are joined here that was given last
        self.signature = Signature(module) if isinstance(patch.value, str) else None
        value = patch.value
        if self.signature is not None and value not in self.signature.arguments.names:
            raise ValueError(
                f"SkipPatch(value={value!r}): the forward of {type(module).__name__} has no such argument; it has"
                f" {', '.join(self.signature.arguments.names)}"
            )

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _describe(self, spec: Handle) -> Function:
        # A run keeps the value that the patch had when the run began.
        now = Skipping(self.patch._as_now(), self.module, self.length)
        now.before, now.last = self.before, self.last
        return Function(spec, now._call)

    def op(self, original_output: Any) -> Any:
        _forwards[id(self.module)].next(self)
        return original_output

    def behind(self, before: Skipping) -> Skipping:
        """The patch to use if ``before`` is placed at the same call. It is this one, or both joined if they can be."""
        if before.last is self.last:  # it is registered once for each of the patches that it stands for
            return before
        if isinstance(self.patch, KeepPatch):
            keeping = Skipping(self.patch, self.module, self.length)
            keeping.before, keeping.last = before, self.last
            return keeping
        joined = getattr(self.patch, "behind", None)
        patch = self.patch if joined is None else joined(before.patch)
        if patch is self.patch:
            return self
        both = Skipping(patch, self.module, self.length)
        both.last = self.last
        return both

    def open(self) -> None:
        """Replaces the module's forward, so that its calls can be skipped from now on."""
        with _lock:
            forward = _forwards.get(id(self.module))
            if forward is None:
                forward = _forwards[id(self.module)] = Forward(self.module)
            forward.users += 1

    def close(self) -> None:
        """Undoes :meth:`open`."""
        with _lock:
            forward = _forwards[id(self.module)]
            forward.users -= 1
            if not forward.users:
                forward.restore()
                del _forwards[id(self.module)]

    def result(self, args: Any, kwargs: Any) -> Any:
        """The result of the call."""
        value = self.patch.value
        if isinstance(self.patch, KeepPatch):
            if self.before is not None:
                output = self.before.result(args, kwargs)
            else:
                output = _forwards[id(self.module)].original(*args, **kwargs)
            self.patch.kept(output)
            return output
        own = getattr(self.patch, "result", None)  # a patch that computes the result itself, from the module
        if own is not None:
            return own(self.module, *args, **kwargs)
        if self.signature is not None:
            value = self.signature.arguments.gather(args, kwargs)[self.signature.arguments.names.index(str(value))]
        elif callable(value) and not isinstance(value, Tensor):
            value = value(*args, **kwargs)
        if self.length is None or isinstance(value, tuple):
            return value
        return (value, *[None] * (self.length - 1))


class _Asked(local):
    """The patch that is to skip the next call on this thread, if any, and the frame that makes this call."""

    skipping: Skipping | None = None
    caller: types.FrameType | None = None


class Forward:
    """The ``forward`` that a module has while some of its calls are skipped."""

    def __init__(self, module: Module) -> None:
        self.module, self.users = module, 0
        self.original = module.forward
        self.own = vars(module).get("forward")
        self.asked = _Asked()

        def forward(*args: Any, **kwargs: Any) -> Any:
            call = direct_call(module)
            if call is not None:
                return call(module, args, kwargs, lambda _module, *args, **kwargs: forward(*args, **kwargs))
            asked = self.asked
            skipping, caller = asked.skipping, asked.caller
            asked.skipping = asked.caller = None
            # If another frame calls, an exception has ended the one whose call was to be skipped. So this call is made.
            if skipping is None or caller is not _caller():
                return self.original(*args, **kwargs)
            return skipping.result(args, kwargs)

        # `inspect.signature` then shows the arguments of the original.
        vars(forward).update(__wrapped__=self.original)
        object.__setattr__(module, "forward", forward)

    def next(self, skipping: Skipping) -> None:
        """Has the next call of the module on this thread skipped."""
        caller, before = _caller(), self.asked.skipping
        if before is not None and self.asked.caller is caller:
            skipping = skipping.behind(before)
        self.asked.skipping, self.asked.caller = skipping, caller

    def restore(self) -> None:
        """Gives the module its own forward back."""
        if self.own is None:
            object.__delattr__(self.module, "forward")
        else:
            object.__setattr__(self.module, "forward", self.own)


# The replaced forwards, by the module's id. An entry keeps its module alive. Any thread may open and close patches.
_forwards: dict[int, Forward] = {}
_lock = new_lock()


def original_of(module: Module) -> Callable[..., Any]:
    """The original forward of a module whose forward is replaced."""
    original: Callable[..., Any] = _forwards[id(module)].original
    return original


def _caller() -> types.FrameType | None:
    """The innermost frame that is neither one of this package nor one of torch's functions that call modules."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__")).startswith(("libgraphpatch.", _TORCHS_OWN)):
        frame = frame.f_back
    return frame


_TORCHS_OWN = Module.__module__
