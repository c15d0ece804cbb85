"""Has vLLM forget what its prefix cache keeps, when a client of live control has changed patches.

Keys and values that were computed with a patch would else serve later requests without it, and the other way round.
The model may run in another process than the one that has the cache. So each process that a client may patch has a
file beside its socket, to which the library appends a byte when patches have changed (src/library/live/changes.rs).
Before vLLM's scheduler makes up its next batch, it is looked whether one of these files has changed: those of its own
process, and of its process's children, which are vLLM's workers.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from ._gone import OfObjects
from ._modules import note

_log = logging.getLogger(__name__)

_SCHEDULER = "vllm.v1.core.sched.scheduler"
_WITHOUT = "start the server with --no-enable-prefix-caching, or take no cached answer after a change of patches"

# How many seconds after the last of the files has gone the scheduler's method is put back. A worker's file comes some
# time after its engine has begun to watch.
_PATIENCE = 600

# The states of the files that exist and are not empty. A file that is removed and made anew is another one.
State = tuple[tuple[int, int, int], ...]


def install(folder: str) -> None:
    """Begins to watch, if vLLM is loaded here.

    Args:
        folder: That of the sockets of live control.
    """
    if "vllm" not in sys.modules:
        return
    (Path(folder) / f"{os.getpid()}.changes").write_bytes(b"")
    module = sys.modules.get(_SCHEDULER)
    if module is None:  # a worker; the engine has it
        return
    scheduler: Any = module.Scheduler
    if "reset_running_requests" not in inspect.signature(scheduler.reset_prefix_cache).parameters:
        note(None, f"this vLLM cannot forget what its prefix cache keeps while requests are running: {_WITHOUT}")
        return
    _Watch(scheduler, Path(folder)).begin()


class _Watch:
    """Takes the place of the scheduler's method ``schedule``, until no process listens any more.

    Args:
        scheduler: vLLM's class.
        folder: That of the sockets of live control.
    """

    def __init__(self, scheduler: Any, folder: Path) -> None:
        self._scheduler, self._schedule = scheduler, scheduler.schedule
        self._files = [str(folder / f"{pid}.changes") for pid in (os.getpid(), *_children())]
        self._last_there = time.monotonic()
        # What each scheduler has seen; nothing where that is the empty state.
        self._seen = OfObjects()

    def begin(self) -> None:
        if hasattr(self._schedule, "graphpatch_watch"):  # an earlier attach; its workers may be others
            self._schedule.graphpatch_watch.files(self._files)
            return

        @functools.wraps(self._schedule)
        def schedule(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
            self._look(scheduler)
            return self._schedule(scheduler, *args, **kwargs)

        vars(schedule)["graphpatch_watch"] = self
        self._scheduler.schedule = self._ours = schedule

    def files(self, files: list[str]) -> None:
        """Watches these files as well."""
        self._last_there = time.monotonic()
        self._files = [*dict.fromkeys([*self._files, *files])]

    def _look(self, scheduler: Any) -> None:
        there, state = self._state()
        if state != (self._seen.get(scheduler) or ()):
            _forget(scheduler)
            if state:
                self._seen.put(scheduler, state)
            else:
                self._seen.drop(scheduler)
        if there:
            self._last_there = time.monotonic()
        elif not self._seen and time.monotonic() > self._last_there + _PATIENCE and self._is_on_top():
            self._scheduler.schedule = self._schedule

    def _is_on_top(self) -> bool:
        """Whether no other package has put a function in front of ours."""
        return self._scheduler.schedule is self._ours

    def _state(self) -> tuple[bool, State]:
        """Whether any of the files is there, and their state."""
        there, found = False, []
        for file in self._files:
            try:
                told = os.stat(file)
            except OSError:
                continue
            there = True
            if told.st_size:
                found.append((told.st_ino, told.st_size, told.st_mtime_ns))
        return there, tuple(found)


def _children() -> list[int]:
    found: list[int] = []
    for listed in Path("/proc/self/task").glob("*/children"):
        try:
            found += map(int, listed.read_text().split())
        except OSError:  # a thread that has ended meanwhile
            continue
    return found


def _forget(scheduler: Any) -> None:
    """Empties the cache, and has the requests that are running computed anew, as their keys and values were computed
    with other patches. Their texts so far stay. Does nothing where nothing is kept for later requests."""
    try:
        if not scheduler.cache_config.enable_prefix_caching and getattr(scheduler, "connector", None) is None:
            return
        done = scheduler.reset_prefix_cache(reset_running_requests=True, reset_connector=True)
        if hasattr(scheduler, "reset_encoder_cache"):
            scheduler.reset_encoder_cache()
        why = "" if done else "vLLM refuses it"
    except Exception as error:  # an error of ours must not end the engine
        why = f"{type(error).__name__}: {error}"
    if why:
        text = f"patches have changed, and what the prefix cache keeps stays ({why}): {_WITHOUT}"
        _log.error("libgraphpatch: %s", text)
        note(None, text)
