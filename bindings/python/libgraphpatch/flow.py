"""Patches of what happens, not of a value: a run that ends early, and a call that does not take place."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from torch import Tensor
from torch.nn import Module

from ._forward_scope import direct_call
from ._signature import Signature
from .errors import Stopped
from .patches import Patch


@dataclass(kw_only=True)
class StopPatch(Patch[Any]):
    """Ends the run at its node: nothing that comes after is computed. The block ``with pg.patch(...)`` swallows the
    :class:`Stopped` that says so, with what stands behind the call in the block.

    >>> with pg.patch({"layers_0.output": [probe := ProbePatch(), StopPatch()]}):
    ...     pg(x)
    """

    requires_clone: bool = field(default=False, init=False)

    def op(self, original_output: Any) -> NoReturn:
        raise Stopped(self)


@dataclass(kw_only=True)
class SkipPatch(Patch[Any]):
    """The call of a module does not happen: its forward is not run, and what it would have returned is ``value``. It
    stands at a scope, ``"layers_2"``, or at its output.

    >>> with pg.patch({"layers_2": SkipPatch(value="hidden_states")}):
    ...     pg(x)

    Where the module returned a tuple, a ``value`` that is none stands first in one of the same length, with None for
    the rest. Inputs are as the patches in front of this one leave them. Hooks of the user's on the module are called.

    Attributes:
        value: The name of one of the arguments of the module's forward; or a function, which is called with the
            call's arguments; or the value itself.
    """

    value: str | Tensor | Callable[..., Any] | Any
    requires_clone: bool = field(default=False, init=False)


@dataclass(kw_only=True)
class KeepPatch(SkipPatch):
    """Stands where a :class:`SkipPatch` may: the call happens, and ``kept`` is told what the module's forward returned,
    before any patch of its output."""

    value: Any = None
    kept: Callable[[Any], None]


class Skipping(Patch[Any]):
    """A :class:`SkipPatch` at one scope: it stands at one of the scope's inputs, and tells the module's forward, which
    is called right behind that on the same thread.

    While it is open, the module has a ``forward`` of its own.

    Args:
        length: Of the tuple that the module returned when it was recorded; None for any other value.
    """

    def __init__(self, patch: SkipPatch, module: Module, length: int | None) -> None:
        super().__init__()
        self.requires_clone = False
        self.patch, self.module, self.length = patch, module, length
        self.signature = Signature(module) if isinstance(patch.value, str) else None
        value = patch.value
        if self.signature is not None and value not in self.signature.names:
            raise ValueError(
                f"SkipPatch(value={value!r}): the forward of {type(module).__name__} has no such argument; it has"
                f" {', '.join(self.signature.names)}"
            )

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def op(self, original_output: Any) -> Any:
        _forwards[id(self.module)].next(self)
        return original_output

    def open(self) -> None:
        """The module's forward listens from now on."""
        forward = _forwards.get(id(self.module))
        if forward is None:
            forward = _forwards[id(self.module)] = Forward(self.module)
        forward.users += 1

    def close(self) -> None:
        """What :meth:`open` began has ended."""
        forward = _forwards[id(self.module)]
        forward.users -= 1
        if not forward.users:
            del _forwards[id(self.module)]
            forward.restore()

    def result(self, args: Any, kwargs: Any) -> Any:
        """What the call comes to."""
        value = self.patch.value
        if isinstance(self.patch, KeepPatch):
            output = _forwards[id(self.module)].original(*args, **kwargs)
            self.patch.kept(output)
            return output
        own = getattr(self.patch, "result", None)  # a patch that computes it itself, of the module
        if own is not None:
            return own(self.module, *args, **kwargs)
        if self.signature is not None:
            value = self.signature.gather(args, kwargs)[self.signature.names.index(str(value))]
        elif callable(value) and not isinstance(value, Tensor):
            value = value(*args, **kwargs)
        if self.length is None or isinstance(value, tuple):
            return value
        return (value, *[None] * (self.length - 1))


class _Asked(threading.local):
    """What the call that a thread is about to make is to be, and who makes it."""

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
            # One that was asked for and did not come this far has an exception of its caller's behind it.
            if skipping is None or caller is not _caller():
                return self.original(*args, **kwargs)
            return skipping.result(args, kwargs)

        # Asked for its arguments, it has those of the original.
        vars(forward).update(__wrapped__=self.original)
        object.__setattr__(module, "forward", forward)

    def next(self, skipping: Skipping) -> None:
        """The call that this thread is about to make is skipped."""
        self.asked.skipping, self.asked.caller = skipping, _caller()

    def restore(self) -> None:
        """The module is as it was."""
        if self.own is None:
            object.__delattr__(self.module, "forward")
        else:
            object.__setattr__(self.module, "forward", self.own)


# By the module's id. An entry holds its module.
_forwards: dict[int, Forward] = {}


def _caller() -> types.FrameType | None:
    """The innermost frame that is neither ours nor torch's own way to a module."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__")).startswith(("libgraphpatch.", _TORCHS_OWN)):
        frame = frame.f_back
    return frame


_TORCHS_OWN = Module.__module__
