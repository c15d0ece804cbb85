"""Functions with a backward of their own (``torch.autograd.Function``). A patch inside their forward would not show in
the gradient.

So ``torch.autograd.Function.apply`` is replaced once. If such a function is called in a run with a value that requires
grad, the library is told, and refuses patches of values that the forward computes. Checkpoints are exempt, since they
compute their forward again with the patches.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.checkpoint import CheckpointFunction

from ._operators import operator
from ._thread import Frame, thread


def install() -> None:
    """Replaces ``torch.autograd.Function.apply``. To be called once."""
    function: Any = torch.autograd.Function
    original = function.apply.__func__

    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if type(thread.frame) is not Frame or not _needs_gradient(cls, args):
            return original(cls, *args, **kwargs)
        switch = operator("own_backward")
        before = switch(True)
        try:
            return original(cls, *args, **kwargs)
        finally:
            switch(before)

    function.apply = classmethod(apply)


def _needs_gradient(cls: Any, args: Any) -> bool:
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or issubclass(cls, CheckpointFunction):
        return False
    return any(isinstance(value, torch.Tensor) and value.requires_grad for value in args)
