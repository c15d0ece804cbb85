"""Modules with hooks of the user's: an output is patched before any of these hooks sees it.

torch runs hooks inside the module's call. While a call whose output is wanted is under way, a hook of ours comes before
them. It does nothing for calls on other threads, and for calls of the same module inside its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch.nn import Module
from torch.nn.modules import module as torchs

from ._locks import new_lock
from ._thread import thread
from ._threads import local

# The hooks that torch keeps for all modules.
GLOBAL = (
    torchs._global_forward_hooks,
    torchs._global_backward_hooks,
    torchs._global_backward_pre_hooks,
)
_KEY = "libgraphpatch"


class HookedCall:
    """A call whose output is to be shown, once, before the module's hooks see it. It begins when the object is made.

    Args:
        show: Returns the output as patches left it.
    """

    __slots__ = ("_hooks", "frame", "is_shown", "module", "show")

    def __init__(self, module: Module, show: Callable[[Any], Any]) -> None:
        self.module, self.show = module, show
        self.frame = thread.frame
        self.is_shown = False
        # torch runs the hooks for all modules first.
        self._hooks = torchs._global_forward_hooks or module._forward_hooks
        calls.open.append(self)
        _hold(self._hooks)

    def end(self) -> None:
        """The call has returned or raised."""
        _let_go(self._hooks)
        calls.open.remove(self)

    def result(self, output: Any) -> Any:
        """What the call returns, after :meth:`end`. Some calls, such as compiled ones, run no hooks."""
        return output if self.is_shown else self.show(output)

    def shown(self, output: Any) -> Any:
        self.is_shown = True
        return self.show(output)


class _Calls(local):
    """The open calls of this thread, the innermost last."""

    def __init__(self) -> None:
        self.open: list[HookedCall] = []


calls = _Calls()
_lock = new_lock()
# How many calls need our hook, by the id of the dict of hooks that it is in.
_held: dict[int, int] = {}


def is_hooked(module: Module) -> bool:
    """Whether hooks of the user's may change the output inside the module's call. src/library/python/scope.rs asks the
    same."""
    own = module._forward_hooks or module._backward_hooks or module._backward_pre_hooks
    return bool(own) or any(GLOBAL)


def _first(module: Module, args: Any, output: Any) -> Any:
    for this in reversed(calls.open):
        if this.module is module and this.frame is thread.frame and not this.is_shown:
            output = this.shown(output)
    return output


def _hold(hooks: OrderedDict[Any, Any]) -> None:
    with _lock:
        _held[id(hooks)] = _held.get(id(hooks), 0) + 1
        hooks[_KEY] = _first
        hooks.move_to_end(_KEY, last=False)


def _let_go(hooks: OrderedDict[Any, Any]) -> None:
    with _lock:
        left = _held.pop(id(hooks)) - 1
        if left:
            _held[id(hooks)] = left
        else:
            hooks.pop(_KEY, None)
