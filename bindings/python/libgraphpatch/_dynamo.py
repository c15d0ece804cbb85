"""What ``torch.compile`` is told of our functions."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import torch


def skip(code: types.CodeType) -> None:
    """Has torch.compile start with what ``code`` calls, as it does with torch's own frames around a ``forward``."""
    compiler = torch._C._dynamo.eval_frame
    if hasattr(compiler, "skip_code"):
        compiler.skip_code(code)
    else:
        action = compiler._FrameAction
        compiler.set_code_exec_strategy(code, compiler._FrameExecStrategy(action.SKIP, action.DEFAULT))


def take_for_torchs_own(original: Callable[..., Any], call: Callable[..., Any]) -> None:
    """torch.compile looks through modules whose ``__call__`` is torch's own: it takes ``call`` for that."""
    for name in ("torch._dynamo.utils", "torch._dynamo.variables.nn_module"):
        holder: Any = sys.modules.get(name)
        if getattr(holder, "unpatched_nn_module_call", None) is original:
            holder.unpatched_nn_module_call = call
