"""The block in which patches hold, which ``with pg.patch(...)`` opens and closes."""

from __future__ import annotations

import contextlib
import sys
import types
import warnings
from typing import Any, NoReturn

from ._awaited import Awaited, AwaitedPatch, never_matched
from ._handle import Handle
from ._header import GP_NODE_KIND_PARAMETER
from ._library import fail, message
from ._limits import is_limited
from ._native import method, native
from ._opened import Counts, Opened, register
from ._place import Placed
from ._recorder import Recorder
from .errors import MissingPatchWarning, PatchError, PathError, Stopped
from .flow import Skipping, StopPatch


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
                    # A run that is under way may still reach it.
                    undo.callback(self._recorder.root.retire, [place.done])
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
            self._await(opened, sys._getframe(1 if native is not None else 2))
        if missing and self._on_missing == "raise":
            raise PatchError(missing)
        if missing:
            warnings.warn(missing, MissingPatchWarning, stacklevel=2 if native is not None else 3)
        return stopped

    def _await(self, opened: Opened, ended: types.FrameType) -> None:
        """Reports patches that no run has reached as soon as none can do so any more."""
        patches = [
            AwaitedPatch(place.path, numbers)
            for place, counts, numbers in zip(self._places, opened.counts(), opened.awaited, strict=True)
            if numbers and not counts.matched
        ]
        if patches and self._on_missing != "ignore":
            said = f": the runs of {self._name()} that began in the block did not come by there"
            place = ended.f_code.co_filename, ended.f_lineno
            self._recorder.root.await_runs(Awaited(self._recorder.session, patches, said, place))

    def _missing(self, opened: Opened) -> str:
        """The message about patches whose node no run reached; empty if there are none, or if nobody wants it. Says
        nothing of patches that a run may still reach."""
        if self._on_missing == "ignore":
            return ""
        found = [*zip(self._places, opened.counts(), opened.awaited, strict=True)]
        paths = [place.path for place, counts, awaited in found if not counts.matched and not awaited]
        unused = [
            (place.path, bool(awaited))
            for place, counts, awaited in found
            if is_limited(place.done) and counts.matched and not counts.applied and not counts.failed
        ]
        if not paths and unused:
            came = "have not come so far, and runs are under way" if any(later for _, later in unused) else "never came"
            return f"the rows, positions or steps of a patch {came}: {', '.join(dict.fromkeys(dict(unused)))}"
        if not paths:
            return ""
        what, name = never_matched(paths), self._name()
        if self._recorder.root.begun == opened.begun:
            return (
                f"{what}: no call of {name} or of a module in it began in the block; what its other methods do beside"
                " such calls is no part of a run"
            )
        said = f"{what}: the calls of {name} in the block did not come by there"
        if written := [place.leaf for place in self._places if place.path in paths and self._is_parameter(place.leaf)]:
            said += (
                f". No operation read {', '.join(dict.fromkeys(written))}: a parameter or buffer is patched where it is"
                " read; where it is only written to, patch what the operation that writes returns"
            )
        return said

    def _name(self) -> str:
        module = self._recorder.root.module()
        return "the module" if module is None else type(module).__name__

    def _is_parameter(self, leaf: str) -> bool:
        with contextlib.suppress(PathError):
            return bool(self._recorder.graph().node(leaf).kind == GP_NODE_KIND_PARAMETER)
        return False


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
    recorder.root.tell_awaited(all_of_them=True)


def _finish(recorder: Recorder) -> None:
    """Finishes blocks that have ended, but whose clean-up was prevented by an exception."""
    with recorder.root.beginning:
        left = [opened for opened in recorder.opened if not opened.holds.get("now")]
    for opened in left:
        opened.undo.close()
