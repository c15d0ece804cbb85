"""The registration of a block's patches: what one entering of it holds in the session until it is left."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any, NamedTuple

from ._awaited import counted
from ._graphs import is_number
from ._handle import Handle
from ._library import check, lib, made
from ._limits import is_limited
from ._patch_function import Function
from ._place import Placed
from ._recorder import Recorder
from ._root import Closes
from .errors import PathError
from .patches import Limited


class Counts(NamedTuple):
    """The counts of one patch: how often its node had a value in a run, how often it was applied, and how often it
    failed."""

    matched: int = 0
    applied: int = 0
    failed: int = 0


class Opened:
    """A block that was entered, and its patches as they are registered. A block that is entered twice has two of
    these."""

    def __init__(self, recorder: Recorder, places: list[Placed], runs: str | None, this_thread: bool) -> None:
        self.recorder, self.places, self.runs, self.this_thread = recorder, places, runs, this_thread
        self.held: list[Closes | None] = []
        self.parts: list[tuple[int, Limited]] = []  # the functions of limited patches, by the number of the patch
        self.begun = 0  # how many runs had begun before
        self.changes = sum(not place.done._only_looks() for place in places)
        # How many of the patches are functions of the user's, whose result may be of another type than the value.
        self.functions = sum(place.done._is_function() for place in places)
        self.limited = sum(is_limited(place.done) for place in places)
        self.before = [Counts() for _ in places]  # the counts of patches that are no longer registered
        # When the block has ended: for each patch, the numbers by which a run that is under way may still reach it.
        self.awaited: list[list[int]] = [[] for _ in places]
        # The numbers of the registered patches. `_replaced` has those of earlier versions of them, from before a patch
        # was changed, as long as a run may still use and count these.
        self._numbers: Any = None
        self._replaced: list[Any] = []
        # `holds["now"]` says whether the patches are registered. The extension finds them by `live`.
        self.holds: dict[str, bool] = {}
        self.live: tuple[int, int, int, dict[str, bool]] = 0, 0, 0, self.holds
        self.undo = contextlib.ExitStack()

    def last(self, specs: list[Handle], on_error: str) -> Any:
        """Does everything that has to be done right before the registration, and returns the registration's arguments.
        A run begins with all of the patches or with none."""
        recorder, root = self.recorder, self.recorder.root
        self.begun = root.begun
        self.undo.callback(self._close)
        if on_error == "skip":
            recorder.skip(self, True)
        recorder.opened.append(self)
        root.changes += self.changes
        root.functions += self.functions
        root.limited += bool(self.limited and not root.limits)
        root.limits += self.limited
        for place in self.places:
            place.patch._held(self, place.path)
        return self._arguments(specs)

    def changed(self) -> None:
        """Called when a patch was changed. The patches of this block and of the inner ones are registered anew, in
        their order, for runs that begin from now on."""
        recorder = self.recorder
        with recorder.root.beginning:
            later = recorder.opened[recorder.opened.index(self) :]
            specs = [(opened, opened._specs()) for opened in later]
            for opened in later:
                limited = sum(is_limited(place.done) for place in opened.places)
                recorder.root.limited += bool(limited and not recorder.root.limits)
                recorder.root.limits += limited - opened.limited
                opened.limited = limited
            for opened, made_anew in specs:
                opened._replace(made_anew)

    def counts(self) -> list[Counts]:
        """The counts of each patch so far."""
        counts = [*self._counts_of_calls()]  # those from before stay as they are
        for number, limited in self.parts:
            counts[number] = counts[number]._replace(applied=counts[number].applied - limited.left)
        return counts

    def _counts_of_calls(self) -> list[Counts]:
        """The same, with calls of a limited patch of whose value it meant nothing."""
        # Another thread that enters a block may remove patches of a block that has ended, and save their counts.
        with self.recorder.root.beginning:
            total = self.before
            for numbers in self._registered():
                pairs = zip(total, counts_of(self.recorder.session, numbers), strict=True)
                total = [_sum(before, now) for before, now in pairs]
            return total

    def _registered(self) -> list[Any]:
        return self._replaced if self._numbers is None else [*self._replaced, self._numbers]

    def _specs(self) -> list[Handle]:
        return [self._spec(number, place) for number, place in enumerate(self.places)]

    def _spec(self, number: int, place: Placed) -> Handle:
        spec = Handle(lib.gp_spec_free, made(lib.gp_spec_new, place.leaf.encode()))
        living = place.done._describe(spec)
        self.held.append(living)
        if isinstance(living, Limited):
            self.parts.append((number, living))
        if isinstance(living, Function) and self._is_number(place.leaf):
            living.take_number()
        if self.runs is not None:
            check(lib.gp_spec_runs(spec, self.runs.encode()))  # also checks that `runs` is well-formed
        check(lib.gp_spec_this_thread(spec, self.this_thread))
        return spec

    def _is_number(self, leaf: str) -> bool:
        try:
            return is_number(self.recorder.graph().node(leaf))
        except PathError:  # the inside of an operation, which was not shown so far
            return False

    def _arguments(self, specs: list[Handle]) -> Any:
        """The arguments of the registration: the session, the specs, how many there are, where their numbers go, and
        the dict in which success is noted."""
        if self.runs is not None:
            runs = _counted_from(self.begun, self.runs).encode()
            for spec in specs:
                check(lib.gp_spec_runs(spec, runs))
        handles = (ctypes.c_void_p * len(specs))(*[spec._as_parameter_ for spec in specs])
        self._numbers = numbers = (ctypes.c_uint64 * len(specs))()
        self._kept = specs, handles
        session, where = self.recorder.session._as_parameter_, ctypes.addressof(numbers)
        self.live = session, where, len(specs), self.holds
        return session, ctypes.addressof(handles), len(specs), where, self.holds

    def _register(self, specs: list[Handle]) -> None:
        check(register(self._arguments(specs)))

    def _replace(self, specs: list[Handle]) -> None:
        """Registers these specs for runs that begin from now on. A run that is under way keeps the earlier ones, and
        counts there."""
        for number in self._numbers:
            check(lib.gp_patch_enable(self.recorder.session, number, False))
        self._replaced.append(self._numbers)
        self._register(specs)
        if self.recorder.root.is_idle:
            current, self._numbers = self._numbers, None
            self._remove()
            self._numbers = current

    def _remove(self) -> None:
        # Asked first, since a run that ends meanwhile has counted before.
        self.awaited = [[number for number in numbers if self._is_pending(number)] for numbers in self._by_place()]
        self.before = self._counts_of_calls()
        for numbers in self._registered():
            lib.gp_patch_remove_all(self.recorder.session, numbers, len(numbers))
        self._replaced, self._numbers = [], None

    def _by_place(self) -> Iterator[tuple[int, ...]]:
        return zip(*self._registered(), strict=True)

    def _is_pending(self, number: int) -> bool:
        # A snapshot holds patches as a run does, but what is computed from it has been computed before.
        counts = counted(self.recorder.session, number) if self.recorder.root.running else None
        return counts is not None and bool(counts.pending)

    def _close(self) -> None:
        with self.recorder.root.beginning:
            self._remove()
            self.holds["now"] = False
            self.recorder.skip(self, False)
            if self in self.recorder.opened:
                self.recorder.root.changes -= self.changes
                self.recorder.root.functions -= self.functions
                self.recorder.root.limits -= self.limited
                self.recorder.opened.remove(self)
                for place in self.places:
                    place.patch._let_go(self)


def register(arguments: Any) -> int:
    """Registers what :meth:`Opened.last` has prepared, and returns the status."""
    session, specs, count, numbers, holds = arguments
    status: int = lib.gp_patch_register_all(session, specs, count, numbers)
    holds["now"] = not status
    return status


def counts_of(session: Handle, numbers: Any) -> list[Counts]:
    """The counts of the patches with these numbers; zeros for one that is not registered."""
    found = [counted(session, number) for number in numbers]
    return [Counts() if one is None else Counts(one.matched, one.applied, one.failed) for one in found]


def _sum(one: Counts, other: Counts) -> Counts:
    if not any(one):
        return other
    return Counts(*(first + second for first, second in zip(one, other, strict=True)))


def _counted_from(first: int, runs: str) -> str:
    """The ``runs`` of a block, which count from its beginning, as numbers of the session, which counts all runs."""
    start, dots, end = runs.partition("..")
    if not dots:
        return str(first + int(start))
    return f"{first + int(start or 0)}..{first + int(end) if end.strip() else ''}"
