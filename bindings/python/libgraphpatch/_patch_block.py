"""The block in which patches hold, which ``with pg.patch(...)`` opens and closes."""

from __future__ import annotations

import contextlib
import ctypes
import types
import warnings
from typing import Any, NamedTuple, NoReturn

from ._graphs import is_number
from ._handle import Handle
from ._header import gp_patch_counts
from ._library import check, fail, lib, made, message
from ._limits import is_limited
from ._native import method, native
from ._patch_function import Function
from ._place import Placed
from ._recorder import Recorder
from ._root import Closes
from .errors import MissingPatchWarning, PatchError, Stopped
from .flow import Skipping, StopPatch
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
        if isinstance(living, Function) and is_number(self.recorder.graph().node(place.leaf)):
            living.take_number()
        if self.runs is not None:
            check(lib.gp_spec_runs(spec, self.runs.encode()))  # also checks that `runs` is well-formed
        check(lib.gp_spec_this_thread(spec, self.this_thread))
        return spec

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
        if self.recorder.root.running == 0:
            current, self._numbers = self._numbers, None
            self._remove()
            self._numbers = current

    def _remove(self) -> None:
        self.before = self._counts_of_calls()
        for numbers in self._registered():
            lib.gp_patch_remove_all(self.recorder.session, numbers, len(numbers))
        self._replaced, self._numbers = [], None

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


class PatchBlock(contextlib.ContextDecorator):
    """The block of :meth:`PatchableGraph.patch`. It may be entered any number of times, also inside itself. It is also
    a decorator: each call of the decorated function is then such a block."""

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
        self._lock = recorder.root.beginning
        self._open: list[Opened] = []
        self._prepared: tuple[Opened, list[Handle]] | None = None
        self._counted: Opened | None = None

    @property
    def counts(self) -> dict[str, list[Counts]]:
        """The counts of the patches in the block that was entered last, by path, in the order of the patches there.
        They can still be read when the block has ended."""
        counts: dict[str, list[Counts]] = {place.path: [] for place in self._places}
        found = [Counts() for _ in self._places] if self._counted is None else self._counted.counts()
        for place, count in zip(self._places, found, strict=True):
            counts[place.path].append(count)
        return counts

    def __enter__(self) -> PatchBlock:
        self._prepare()
        with self._lock:
            status = register(self._last())
        if status:
            self._failed(status)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: types.TracebackType | None = None,
    ) -> bool:
        return self._left(kind, error, trace)

    def _prepare(self) -> None:
        """Does all of the entering that can be done before runs on other threads have to wait."""
        _finish(self._recorder)
        opened = Opened(self._recorder, self._places, self._runs, self._this_thread)
        with contextlib.ExitStack() as undo:
            for place in self._places:
                if isinstance(place.done, Skipping):
                    place.done.open()
                    undo.callback(place.done.close)
            self._recorder.want(1)
            undo.callback(self._recorder.want, -1)
            if self._recorder.root.has_parts:
                # What is computed from parts of DTensors is known only where all operations are seen.
                self._recorder.record(1)
                undo.callback(self._recorder.record, -1)
            undo.callback(self._recorder.root.retire, opened.held)
            specs = opened._specs()
            opened.undo = undo.pop_all()
        self._prepared = opened, specs

    def _last(self) -> Any:
        assert self._prepared is not None
        (opened, specs), self._prepared = self._prepared, None
        try:
            arguments = opened.last(specs, self._on_error)
            # Leaves out blocks whose entering was ended by an exception.
            self._open = [*(other for other in self._open if other.holds.get("now")), opened]
            self._counted = opened
            return arguments
        except BaseException:
            opened.undo.close()
            raise

    def _failed(self, status: int) -> NoReturn:
        said = message()
        self._open.pop().undo.close()
        fail(status, said)

    def _left(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        opened = self._open.pop()
        missing = ""
        stopped = isinstance(error, Stopped) and any(place.patch is error.patch for place in self._places)
        opened.undo.close()
        # If the block ends by an exception, a patch may be missing only because of that, so it is not reported. The
        # counts were read and kept when the patches were removed.
        if kind is None:
            missing = self._missing(opened)
        if missing and self._on_missing == "raise":
            raise PatchError(missing)
        if missing:
            warnings.warn(missing, MissingPatchWarning, stacklevel=2 if native is not None else 3)
        return stopped

    def _missing(self, opened: Opened) -> str:
        """The message about patches whose node no run reached; empty if there are none, or if nobody wants it."""
        if self._on_missing == "ignore":
            return ""
        pairs = zip(self._places, opened.counts(), strict=True)
        all_counts = [*pairs]
        paths = [place.path for place, counts in all_counts if not counts.matched]
        unused = [
            place.path
            for place, counts in all_counts
            if is_limited(place.done) and not counts.applied and not counts.failed
        ]
        if not paths and unused:
            return f"the rows, positions or steps of a patch never came: {', '.join(dict.fromkeys(unused))}"
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


# A signal handler may raise an exception at any instruction of a Python function, also of these two. The extension's
# versions are not written in Python, so that no patch outlives its block.
if native is not None:
    for _name, _function in (("__enter__", native.enter), ("__exit__", native.leave)):
        setattr(PatchBlock, _name, method(_function))


class Edit:
    """Patches that hold until they are closed, without a block: what :meth:`PatchableGraph.edit` returns. It may be a
    context manager, which closes it.

    A :class:`StopPatch` among them ends runs by :class:`Stopped`, which the caller of the module sees.
    """

    def __init__(self, block: PatchBlock) -> None:
        self._block: PatchBlock | None = block.__enter__()
        self._counts = block
        block._recorder.edits.append(self)

    @property
    def counts(self) -> dict[str, list[Counts]]:
        """The counts of the patches, by path. They can still be read when it is closed."""
        return self._counts.counts

    @property
    def is_open(self) -> bool:
        """Whether the patches hold."""
        return self._block is not None

    def close(self) -> None:
        """Ends the patches. Does nothing if it is closed already. Patches whose node no run reached are reported as at
        the end of a block."""
        block, self._block = self._block, None
        if block is not None:
            block._recorder.edits.remove(self)
            block.__exit__(None, None, None)

    def _tell(self) -> None:
        """Warns of patches whose node no run reached, for an edit that is never closed."""
        block = self._block
        if block is not None and (missing := block._missing(block._open[-1])):
            warnings.warn(missing, MissingPatchWarning, stacklevel=2)

    def __enter__(self) -> Edit:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def tell_of_edits(recorder: Recorder) -> None:
    """Warns of missed patches of edits that are still open. Called when the PatchableGraph or the process ends."""
    for edit in recorder.edits:
        edit._tell()


def register(arguments: Any) -> int:
    """Registers what :meth:`Opened.last` has prepared, and returns the status."""
    session, specs, count, numbers, holds = arguments
    status: int = lib.gp_patch_register_all(session, specs, count, numbers)
    holds["now"] = not status
    return status


def _finish(recorder: Recorder) -> None:
    """Finishes blocks that have ended, but whose clean-up was prevented by an exception."""
    with recorder.root.beginning:
        left = [opened for opened in recorder.opened if not opened.holds.get("now")]
    for opened in left:
        opened.undo.close()


def counts_of(session: Handle, numbers: Any) -> list[Counts]:
    """The counts of the patches with these numbers; zeros for one that is not registered."""
    counts = gp_patch_counts()
    counts.size = ctypes.sizeof(counts)
    place = ctypes.byref(counts)
    get = lib.gp_patch_get_counts
    return [
        Counts() if get(session, number, place) else Counts(counts.matched, counts.applied, counts.failed)
        for number in numbers
    ]


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
