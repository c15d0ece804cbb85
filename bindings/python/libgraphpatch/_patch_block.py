"""The block in which patches hold: what ``with pg.patch(...)`` opens and closes."""

from __future__ import annotations

import contextlib
import ctypes
import warnings
from typing import Any, NamedTuple

from ._graphs import is_number
from ._header import gp_patch_counts
from ._library import Handle, check, lib, made
from ._patch_function import Function
from ._place import Placed
from ._recorder import Recorder
from ._root import Closes
from .errors import MissingPatchWarning, PatchError, Stopped
from .flow import Skipping, StopPatch


class Counts(NamedTuple):
    """What became of one patch: how many values of its node runs came by, and how often it was applied, and failed."""

    matched: int = 0
    applied: int = 0
    failed: int = 0


class Opened:
    """One entering of a block: its patches as they are registered."""

    def __init__(self, recorder: Recorder, places: list[Placed], runs: str | None, this_thread: bool) -> None:
        self.recorder, self.places, self.runs, self.this_thread = recorder, places, runs, this_thread
        self.held: list[Closes | None] = []
        self.begun = 0  # how many runs had begun before
        self.changes = sum(not place.done._only_looks() for place in places)
        self.before = [Counts() for _ in places]  # of what is registered no longer
        # The patches' numbers; and those of what they were before one changed, as long as a run may count there.
        self._numbers: Any = None
        self._replaced: list[Any] = []

    def open(self, undo: contextlib.ExitStack, on_error: str) -> None:
        """Registers the patches; a run begins with all of them or with none."""
        recorder, root = self.recorder, self.recorder.root
        undo.callback(root.retire, self.held)
        specs = self._specs()
        with root.beginning:
            if on_error == "skip":
                recorder.skip(1)
                undo.callback(recorder.skip, -1)
            self.begun = root.begun
            undo.callback(self._close)
            root.changes += self.changes
            self._register(specs)
            recorder.opened.append(self)
        for place in self.places:
            place.patch._held(self, place.path)

    def changed(self) -> None:
        """A patch is another one now: it holds from the next run on, with those of inner blocks behind it."""
        recorder = self.recorder
        with recorder.root.beginning:
            later = recorder.opened[recorder.opened.index(self) :]
            specs = [(opened, opened._specs()) for opened in later]
            for opened, made_anew in specs:
                opened._replace(made_anew)

    def counts(self) -> list[Counts]:
        """Of each patch so far."""
        total = self.before
        for numbers in self._registered():
            pairs = zip(total, numbers, strict=True)
            total = [_sum(before, _counts(self.recorder.session, number)) for before, number in pairs]
        return total

    def _registered(self) -> list[Any]:
        return self._replaced if self._numbers is None else [*self._replaced, self._numbers]

    def _specs(self) -> list[Handle]:
        return [self._spec(place) for place in self.places]

    def _spec(self, place: Placed) -> Handle:
        spec = Handle(lib.gp_spec_free, made(lib.gp_spec_new, place.leaf.encode()))
        living = place.done._describe(spec)
        self.held.append(living)
        if isinstance(living, Function) and is_number(self.recorder.graph().node(place.leaf)):
            living.take_number()
        if self.runs is not None:
            check(lib.gp_spec_runs(spec, self.runs.encode()))  # also whether it is well-formed
        check(lib.gp_spec_this_thread(spec, self.this_thread))
        return spec

    def _register(self, specs: list[Handle]) -> None:
        if self.runs is not None:
            runs = _counted_from(self.begun, self.runs).encode()
            for spec in specs:
                check(lib.gp_spec_runs(spec, runs))
        handles = (ctypes.c_void_p * len(specs))(*[spec._as_parameter_ for spec in specs])
        numbers = (ctypes.c_uint64 * len(specs))()
        check(lib.gp_patch_register_all(self.recorder.session, handles, len(specs), numbers))
        self._numbers = numbers

    def _replace(self, specs: list[Handle]) -> None:
        """Runs that begin from now on have these. A run that is under way keeps what it has, and counts there."""
        for number in self._numbers:
            check(lib.gp_patch_enable(self.recorder.session, number, False))
        self._replaced.append(self._numbers)
        self._register(specs)
        if self.recorder.root.running == 0:
            current, self._numbers = self._numbers, None
            self._remove()
            self._numbers = current

    def _remove(self) -> None:
        self.before = self.counts()
        for numbers in self._registered():
            lib.gp_patch_remove_all(self.recorder.session, numbers, len(numbers))
        self._replaced, self._numbers = [], None

    def _close(self) -> None:
        with self.recorder.root.beginning:
            self._remove()
            self.recorder.root.changes -= self.changes
            if self in self.recorder.opened:
                self.recorder.opened.remove(self)
                for place in self.places:
                    place.patch._let_go(self)


class PatchBlock(contextlib.ContextDecorator):
    """The block of :meth:`PatchableGraph.patch`. It may be entered any number of times, also inside itself; and it may
    stand in front of a function, whose calls are then such blocks."""

    def __init__(
        self,
        recorder: Recorder,
        places: list[Placed],
        *,
        on_error: str = "raise",
        on_missing: str = "warn",
        runs: str | None = None,
        this_thread: bool = False,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}")
        if on_missing not in ("raise", "warn", "ignore"):
            raise ValueError(f"on_missing is 'raise', 'warn' or 'ignore', not {on_missing!r}")
        self._on_missing = on_missing
        self._recorder, self._on_error, self._runs, self._this_thread = recorder, on_error, runs, this_thread
        self._places = places
        if on_error == "skip" and any(isinstance(place.patch, StopPatch) for place in self._places):
            raise ValueError("a StopPatch ends the run by an exception, which on_error='skip' would leave out")
        self._open: list[tuple[Opened, contextlib.ExitStack]] = []
        self._last: Opened | None = None

    @property
    def counts(self) -> dict[str, list[Counts]]:
        """What became of the patches in the block that was entered last, by path, in the order in which they stand
        there. Also when it has ended."""
        counts: dict[str, list[Counts]] = {place.path: [] for place in self._places}
        found = [Counts() for _ in self._places] if self._last is None else self._last.counts()
        for place, count in zip(self._places, found, strict=True):
            counts[place.path].append(count)
        return counts

    def __enter__(self) -> PatchBlock:
        opened = Opened(self._recorder, self._places, self._runs, self._this_thread)
        with contextlib.ExitStack() as undo:
            for place in self._places:
                if isinstance(place.done, Skipping):
                    place.done.open()
                    undo.callback(place.done.close)
            self._recorder.want(1)
            undo.callback(self._recorder.want, -1)
            opened.open(undo, self._on_error)
            self._open.append((opened, undo.pop_all()))
        self._last = opened
        return self

    def __exit__(self, kind: type[BaseException] | None = None, error: BaseException | None = None, *_: object) -> bool:
        opened, undo = self._open.pop()
        missing = ""
        stopped = isinstance(error, Stopped) and any(place.patch is error.patch for place in self._places)
        try:
            # An exception tells more than a patch that was not reached because of it.
            if kind is None and self._on_missing != "ignore":
                missing = self._missing(opened)
        finally:
            undo.close()
        if missing and self._on_missing == "raise":
            raise PatchError(missing)
        if missing:
            warnings.warn(missing, MissingPatchWarning, stacklevel=2)
        return stopped

    def _missing(self, opened: Opened) -> str:
        """What is said of the patches that no run came by; empty if there are none."""
        pairs = zip(self._places, opened.counts(), strict=True)
        paths = [place.path for place, counts in pairs if not counts.matched]
        if not paths:
            return ""
        what = f"{'a patch' if len(paths) == 1 else 'patches'} never matched: {', '.join(dict.fromkeys(paths))}"
        module = self._recorder.root.module()
        name = "the module" if module is None else type(module).__name__
        if self._recorder.root.begun == opened.begun:
            return (
                f"{what}: no call of {name} or of a module in it began in the block; what its other methods do beside"
                " such calls is no part of a run"
            )
        return f"{what}: the calls of {name} in the block did not come by there"


class Edit:
    """Patches that hold until they are closed, without a block: what :meth:`PatchableGraph.edit` returns. It may be a
    context manager, which closes it.

    A :class:`StopPatch` among them ends runs by :class:`Stopped`, which the caller of the module sees.
    """

    def __init__(self, block: PatchBlock) -> None:
        self._block: PatchBlock | None = block.__enter__()
        self._counts = block

    @property
    def counts(self) -> dict[str, list[Counts]]:
        """What became of the patches, by path; also when closed."""
        return self._counts.counts

    @property
    def is_open(self) -> bool:
        """Whether the patches hold."""
        return self._block is not None

    def close(self) -> None:
        """The patches hold no longer. Nothing happens where that is so already. A patch that no run came by is told of
        as at the end of a block."""
        block, self._block = self._block, None
        if block is not None:
            block.__exit__()

    def __enter__(self) -> Edit:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _counts(session: Handle, number: int) -> Counts:
    counts = gp_patch_counts()
    counts.size = ctypes.sizeof(counts)
    if lib.gp_patch_get_counts(session, number, ctypes.byref(counts)):
        return Counts()
    return Counts(counts.matched, counts.applied, counts.failed)


def _sum(one: Counts, other: Counts) -> Counts:
    return Counts(*(first + second for first, second in zip(one, other, strict=True)))


def _counted_from(first: int, runs: str) -> str:
    """``runs`` of a block as the session's, which counts all."""
    start, dots, end = runs.partition("..")
    if not dots:
        return str(first + int(start))
    return f"{first + int(start or 0)}..{first + int(end) if end.strip() else ''}"
