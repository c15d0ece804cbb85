"""The dispatch key by which the library sees operations, and hiding operations from it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


def key() -> Any:
    """The dispatch key."""
    return torch._C._parse_dispatch_key("TESTING_ONLY_GenericMode")


def unseen() -> Any:
    """A context in which operations on this thread are no part of its run."""
    return torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(key()))


def hide(on: bool) -> None:
    """Whether operations on this thread are hidden from its run, until it is said otherwise."""
    torch._C._dispatch_tls_set_dispatch_key_excluded(key(), on)


@contextlib.contextmanager
def hidden(on: bool) -> Iterator[None]:
    """Inside the block, operations on this thread are hidden from its run, or not; behind it they are as before."""
    before = torch._C._dispatch_tls_is_dispatch_key_excluded(key())
    hide(on)
    try:
        yield
    finally:
        hide(before)


def let_higher_order_through() -> None:
    """Operators of higher order are found by the highest key of all, ours, and then not found."""
    original = torch._ops._compute_keyset

    def without_ours(*args: Any) -> Any:
        return original(*args).remove(key())

    torch._ops._compute_keyset = without_ours
