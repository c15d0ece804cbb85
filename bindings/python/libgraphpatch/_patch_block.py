"""The block in which patches hold: what ``with pg.patch(...)`` opens and closes."""

from __future__ import annotations

import contextlib
import ctypes
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from ._graphs import is_number
from ._header import gp_patch_counts
from ._library import Handle, check, lib, made, message
from ._patch_function import Function
from ._recorder import Recorder
from ._root import Closes, Root
from .errors import MissingPatchWarning, PatchError, PathError
from .graph import NodePath
from .patches import Patch, ProbePatch


class _Opened(NamedTuple):
    """What one entering of a block has to undo, and to ask about in the end."""

    undo: contextlib.ExitStack
    numbers: Any  # of the patches, in their order: an array that the library has filled
    begun: int  # how many runs had begun before


class PatchBlock:
    """The block of :meth:`PatchableGraph.patch`. It may be entered any number of times, also inside itself."""

    def __init__(
        self,
        recorder: Recorder,
        patches: Any,
        *,
        on_error: str,
        on_missing: str,
        runs: str | None,
        this_thread: bool,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}")
        if on_missing not in ("raise", "warn", "ignore"):
            raise ValueError(f"on_missing is 'raise', 'warn' or 'ignore', not {on_missing!r}")
        self._on_missing = on_missing
        self._recorder, self._on_error, self._runs, self._this_thread = recorder, on_error, runs, this_thread
        self._patches = _pairs(patches)
        self._open: list[_Opened] = []
        _check_paths(recorder, [path for path, _ in self._patches])

    def __enter__(self) -> None:
        recorder, root = self._recorder, self._recorder.root
        held: list[Closes | None] = []
        numbers = (ctypes.c_uint64 * len(self._patches))()
        with contextlib.ExitStack() as undo:
            recorder.want(1)
            undo.callback(recorder.want, -1)
            undo.callback(root.retire, held)
            changes = sum(not isinstance(patch, ProbePatch) for _, patch in self._patches)
            root.changes += changes
            undo.callback(_change, root, -changes)
            specs = [self._spec(path, patch, held) for path, patch in self._patches]
            # A run begins with all of them or with none.
            with root.beginning:
                if self._on_error == "skip":
                    recorder.skip(1)
                    undo.callback(recorder.skip, -1)
                if self._runs is not None:
                    runs = _counted_from(root.begun, self._runs).encode()
                    for spec in specs:
                        check(lib.gp_spec_runs(spec, runs))
                undo.callback(self._remove, numbers)
                handles = (ctypes.c_void_p * len(specs))(*[spec._as_parameter_ for spec in specs])
                check(lib.gp_patch_register_all(recorder.session, handles, len(specs), numbers))
            self._open.append(_Opened(undo.pop_all(), numbers, root.begun))

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        opened = self._open.pop()
        missing = ""
        try:
            # An exception tells more than a patch that was not reached because of it.
            if kind is None and self._on_missing != "ignore":
                missing = self._missing(opened)
        finally:
            opened.undo.close()
        if missing and self._on_missing == "raise":
            raise PatchError(missing)
        if missing:
            warnings.warn(missing, MissingPatchWarning, stacklevel=2)

    def _missing(self, opened: _Opened) -> str:
        """What is said of the patches that no run came by; empty if there are none."""
        pairs = zip(self._patches, opened.numbers, strict=True)
        paths = [path for (path, _), number in pairs if not _matches(self._recorder.session, number)]
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

    def _spec(self, path: str, patch: Patch[Any], held: list[Closes | None]) -> Handle:
        spec = Handle(lib.gp_spec_free, made(lib.gp_spec_new, path.encode()))
        living = patch._describe(spec)
        held.append(living)
        if isinstance(living, Function) and is_number(self._recorder.graph().node(path)):
            living.take_number()
        if self._runs is not None:
            check(lib.gp_spec_runs(spec, self._runs.encode()))  # also whether it is well-formed
        check(lib.gp_spec_this_thread(spec, self._this_thread))
        return spec

    def _remove(self, numbers: Any) -> None:
        with self._recorder.root.beginning:
            lib.gp_patch_remove_all(self._recorder.session, numbers, len(numbers))


def _change(root: Root, changes: int) -> None:
    root.changes += changes


def _matches(session: Handle, number: int) -> bool:
    """Whether a run came by the patch; also where its counts cannot be had."""
    counts = gp_patch_counts()
    counts.size = ctypes.sizeof(counts)
    return bool(lib.gp_patch_get_counts(session, number, ctypes.byref(counts))) or counts.matched > 0


def _counted_from(first: int, runs: str) -> str:
    """``runs`` of a block as the session's, which counts all."""
    start, dots, end = runs.partition("..")
    if not dots:
        return str(first + int(start))
    return f"{first + int(start or 0)}..{first + int(end) if end.strip() else ''}"


def _pairs(patches: Any) -> list[tuple[str, Patch[Any]]]:
    """Paths and patches, one by one."""
    if not isinstance(patches, Mapping):
        raise ValueError(f"patches are a mapping from paths to patches, not a {type(patches).__name__}")
    pairs = []
    for path, given in patches.items():
        if not isinstance(path, (str, NodePath)):
            raise ValueError(f"a path is a str or a node of the graph, not a {type(path).__name__}: {path!r}")
        for patch in given if isinstance(given, (list, tuple)) else [given]:
            if not isinstance(patch, Patch):
                raise ValueError(f"{path}: a patch is a libgraphpatch.Patch, such as ZeroPatch(), not {patch!r}")
            pairs.append((str(path), patch))
    return pairs


def _check_paths(recorder: Recorder, paths: list[str]) -> None:
    """Refuses all bad paths in one error."""
    malformed = {}
    for path in paths:
        if lib.gp_path_parse(path.encode(), None):
            malformed[path] = message()
    status = recorder.graph().graphs.check([path for path in paths if path not in malformed])
    if malformed:  # text that is no path names no leaf either
        raise PathError("\n".join([*malformed.values(), *([message()] if status else [])]))
    check(status)
