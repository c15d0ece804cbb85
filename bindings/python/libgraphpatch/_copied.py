"""Containers of which a call got copies, because an element is patched and others who hold the container must not see
that: the arguments of a call, and what a call returns.

What is then appended, set or removed in the copy belongs to the original, too, and the other way round: models fill a
cache or a list of results that way. A patched element stands for the one that it was made from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from ._kinds import is_a


class Copied(Protocol):
    """A copy, and the container that it was made of."""

    def settle(self) -> None:
        """Makes the changes that were made in one of the two since the last time in the other one. Where both were
        changed, those in the copy count."""


class CopiedList:
    def __init__(self, original: list[Any], copied: list[Any]) -> None:
        self.original, self.copied = original, copied
        self._look()

    def _look(self) -> None:
        self.held, self.given = _stored(self.original), _stored(self.copied)

    def settle(self) -> None:
        if not _same(now := _stored(self.copied), self.given):
            list.__setitem__(self.original, slice(None), _carried(now, self.given, self.held))
        elif not _same(now := _stored(self.original), self.held):
            list.__setitem__(self.copied, slice(None), _carried(now, self.held, self.given))
        else:
            return
        self._look()


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
        self._look()

    def _look(self) -> None:
        self.held, self.given = self.items(self.original), self.items(self.copied)

    def settle(self) -> None:
        now = self.items(self.copied)
        if not _same_items(now, self.given):
            self._carry(now, self.given, self.held, self.original)
        elif not _same_items(now := self.items(self.original), self.held):
            self._carry(now, self.held, self.given, self.copied)
        else:
            return
        self._look()

    def _carry(self, now: dict[Any, Any], before: dict[Any, Any], others: dict[Any, Any], other: Any) -> None:
        for key in before.keys() - now.keys():
            self.remove(other, key)
        stands_for = {id(mine): others[key] for key, mine in before.items() if _has_identity(mine)}
        for key, element in now.items():
            if key not in before or element is not before[key]:
                self.put(other, key, stands_for.get(id(element), element))


def _stored(value: list[Any]) -> list[Any]:
    return list(list.__iter__(value))  # whatever its class makes of that where it is iterated over


def _carried(now: list[Any], before: list[Any], others: list[Any]) -> list[Any]:
    """What one list has to hold where the other one holds ``now``. They have held ``others`` and ``before``."""
    stands_for = {id(mine): other for mine, other in zip(before, others, strict=True) if _has_identity(mine)}
    carried = [stands_for.get(id(element), element) for element in now]
    # A number says nothing about where it is from, but at its old place it is the old one.
    for index, (element, mine) in enumerate(zip(now, before, strict=False)):
        if element is mine:
            carried[index] = others[index]
    return carried


def _same(left: list[Any], right: list[Any]) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


def _same_items(left: dict[Any, Any], right: dict[Any, Any]) -> bool:
    return left.keys() == right.keys() and all(element is right[key] for key, element in left.items())


def _has_identity(value: Any) -> bool:
    return is_a(value, (Tensor, list, dict)) or type(value).__dictoffset__ != 0
