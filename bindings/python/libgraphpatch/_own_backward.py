"""Functions with a backward of their own (``torch.autograd.Function``). A patch inside their forward would not show in
the gradient.

So ``apply`` is defined once in a base class of ``torch.autograd.Function``, to which every call comes: a program often
keeps ``Function.apply`` under a name of its own before this module is imported, which would go past another ``apply``
in its place. If such a function is called in a run with a value that requires grad, the library is told, and refuses
patches of values that the forward computes. Checkpoints are exempt, since they compute their forward again with the
patches.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.checkpoint import CheckpointFunction

from ._dispatch_key import hidden
from ._distributed import is_moving
from ._kinds import is_a
from ._operators import operator
from ._thread import Frame, thread


def install() -> None:
    """Defines ``apply`` in the base class. To be called once."""
    base: Any = torch.autograd.function._SingleLevelFunction

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        original = super(base, cls).apply
        if type(thread.frame) is not Frame:
            return original(*args, **kwargs)
        if is_moving(cls):
            with hidden(True):
                return original(*args, **kwargs)
        if not _needs_gradient(cls, args):
            return original(*args, **kwargs)
        switch = operator("own_backward")
        before = switch(True)
        try:
            return original(*args, **kwargs)
        finally:
            switch(before)

    base.apply = classmethod(apply)


def _needs_gradient(cls: Any, args: Any) -> bool:
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or issubclass(cls, CheckpointFunction):
        return False
    return any(is_a(value, torch.Tensor) and value.requires_grad for value in args)
