"""Tensors that a program exchanges while it runs (``torch.utils.swap_tensors``).

A run holds the tensors that it has seen weakly, so that their addresses are not used again. libtorch refuses to
exchange a tensor that somebody holds weakly, and by then ``swap_tensors`` has exchanged half of both. So the run lets
go of them for the moment of the exchange, in which both live by the caller's references.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from ._operators import operator
from ._thread import Frame, thread


def install() -> None:
    """Puts a function of ours in the place of libtorch's exchange. To be called once."""
    original: Any = torch._C._swap_tensor_impl

    @functools.wraps(original)
    def swap(*tensors: Any) -> Any:
        if type(thread.frame) is not Frame:
            return original(*tensors)
        held = [one._cdata for one in tensors if isinstance(one, torch.Tensor)]
        held = [address for address in held if operator("let_go")(address)]
        try:
            return original(*tensors)
        finally:
            for address in held:
                operator("keep")(address)

    torch._C._swap_tensor_impl = swap
