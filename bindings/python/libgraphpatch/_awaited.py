"""Patches that no run had reached when their block ended, while runs on other threads were under way that still may."""

from __future__ import annotations

import ctypes
import warnings
from typing import NamedTuple

from ._handle import Handle
from ._header import gp_patch_counts
from ._library import lib, sized
from .errors import MissingPatchWarning


class AwaitedPatch(NamedTuple):
    """A patch, and the numbers of its registrations in which a run may still reach it."""

    path: str
    numbers: list[int]


class Awaited:
    """The report about such patches of one block, which is made when the last of these runs has ended.

    Args:
        said: How the message goes on behind the paths.
        place: The file and line at which the block ended.
    """

    def __init__(self, session: Handle, patches: list[AwaitedPatch], said: str, place: tuple[str, int]) -> None:
        self._session, self._patches, self._said, self._place = session, patches, said, place

    def is_over(self) -> bool:
        """Whether no run can reach a patch any more that none has reached so far."""
        left = []
        for patch in self._patches:
            counts = [counted(self._session, number) for number in patch.numbers]
            # A patch that the library does not know any more was reached.
            if all(found is not None and not found.matched for found in counts):
                left.append((patch, any(found is not None and found.pending for found in counts)))
        self._patches = [patch for patch, _ in left]
        return not any(pending for _, pending in left)

    def tell(self) -> None:
        """Warns of the patches that no run has reached."""
        if self._patches:
            paths = [patch.path for patch in self._patches]
            warnings.warn_explicit(never_matched(paths) + self._said, MissingPatchWarning, *self._place)


def never_matched(paths: list[str]) -> str:
    """The beginning of the message about these patches."""
    return f"{'a patch' if len(paths) == 1 else 'patches'} never matched: {', '.join(dict.fromkeys(paths))}"


def counted(session: Handle, number: int) -> gp_patch_counts | None:
    """The counts of the patch with this number; None for one that the library does not know (any more)."""
    counts = sized(gp_patch_counts)
    return None if lib.gp_patch_get_counts(session, number, ctypes.byref(counts)) else counts
