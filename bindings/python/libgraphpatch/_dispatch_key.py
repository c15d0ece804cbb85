"""The dispatch key by which the library sees operations, and hiding operations from it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import torch


def key() -> Any:
    """The dispatch key."""
    return torch._C._parse_dispatch_key("TESTING_ONLY_GenericMode")


def unseen() -> Any:
    """A context in which operations on this thread do not belong to its run."""
    return torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(key()))


def hide(on: bool) -> None:
    """Hides operations on this thread from its run, or shows them again, until the next call."""
    torch._C._dispatch_tls_set_dispatch_key_excluded(key(), on)


@contextlib.contextmanager
def hidden(on: bool) -> Generator[None, None, None]:
    """Hides operations on this thread from its run inside the block, or shows them. After the block it is as before."""
    before = torch._C._dispatch_tls_is_dispatch_key_excluded(key())
    hide(on)
    try:
        yield
    finally:
        hide(before)


def let_higher_order_through() -> None:
    """torch looks up the implementation of a higher-order operator by the highest dispatch key. That would be ours, for
    which there is none; so ours is left out there."""
    original = torch._ops._compute_keyset

    def without_ours(*args: Any) -> Any:
        return original(*args).remove(key())

    torch._ops._compute_keyset = without_ours
