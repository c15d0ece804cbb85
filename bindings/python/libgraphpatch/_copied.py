"""Containers of which a call got copies, because an element is patched and the caller must not see that.

What the call then appends, sets or removes belongs to the caller's container, too: models fill a cache or a list of
results that way. A patched element stands for the one that it was made from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor


class Copied(Protocol):
    """A copy, and the container that it was made of."""

    def settle(self) -> None:
        """Makes the changes that the call has made in the copy in the original."""


class CopiedList:
    def __init__(self, original: list[Any], copied: list[Any]) -> None:
        self.original, self.copied = original, copied
        self.held, self.given = list(original), list(copied)

    def settle(self) -> None:
        if _same(self.copied, self.given):
            return
        made_from = {id(new): old for new, old in zip(self.given, self.held, strict=True) if _has_identity(new)}
        settled = [made_from.get(id(element), element) for element in self.copied]
        # A number says nothing about where it is from, but at its old place it is the old one.
        for index, (element, given) in enumerate(zip(self.copied, self.given, strict=False)):
            if element is given:
                settled[index] = self.held[index]
        self.original[:] = settled


class CopiedDict:
    """The same for a dict or an object with fields. ``items`` lists what it holds; ``put`` and ``remove`` change it."""

    def __init__(
        self,
        original: Any,
        copied: Any,
        items: Callable[[Any], dict[Any, Any]],
        put: Callable[[Any, Any, Any], None],
        remove: Callable[[Any, Any], None],
    ) -> None:
        self.original, self.copied = original, copied
        self.items, self.put, self.remove = items, put, remove
        self.held, self.given = items(original), items(copied)

    def settle(self) -> None:
        now = self.items(self.copied)
        for key in self.given.keys() - now.keys():
            self.remove(self.original, key)
        made_from = {id(new): self.held[key] for key, new in self.given.items() if _has_identity(new)}
        for key, element in now.items():
            if key not in self.given or element is not self.given[key]:
                self.put(self.original, key, made_from.get(id(element), element))


def _same(left: list[Any], right: list[Any]) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


def _has_identity(value: Any) -> bool:
    return isinstance(value, (Tensor, list, dict)) or hasattr(value, "__dict__")
