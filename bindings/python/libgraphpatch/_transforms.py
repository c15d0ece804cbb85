"""Refuses torch.compile, export and tracers for a PatchableGraph. They would make a program in which this package's
calls are taken for the model's."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import fx
from torch._guards import TracingContext

from ._dispatch_modes import mode_on
from ._kinds import is_a
from .errors import GraphPatchError

_MODES = {"PROXY": "make_fx() or torch.export.export()", "FAKE": "torch.export.export()"}
_tracing = torch._C._get_tracing_state
_compiling = getattr(torch._C._dynamo.eval_frame, "get_eval_frame_callback", lambda: None)


def refuse(name: str, how: str) -> NoReturn:
    raise GraphPatchError(
        f"a PatchableGraph of {name} cannot be given to {how}: give the module itself, `pg.module`; patches do not hold"
        " in what is made of it"
    )


def refuse_compilation(name: str) -> None:
    """Raises if torch.compile meets a PatchableGraph among the values that a function uses."""
    if TracingContext.try_get() is not None:
        refuse(name, "torch.compile()")


def refuse_transforms(name: str, *values: Any) -> None:
    """Raises if the call is about to be traced, in order to make another program of it."""
    if callable(_compiling()) or torch.compiler.is_compiling():
        refuse(name, "torch.compile()")
    if _tracing() is not None:
        refuse(name, "torch.jit.trace()")
    mode = mode_on(*_MODES)
    if mode is not None:
        refuse(name, _MODES[mode])
    if any(is_a(value, fx.Proxy) for value in values):
        refuse(name, "torch.fx.symbolic_trace()")
