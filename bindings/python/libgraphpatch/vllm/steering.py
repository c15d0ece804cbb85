"""The patches of all requests of a model's batches."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Container, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module

from .._files import beside
from .._graphs import Graphs
from .._library import lib, made
from .._optional import needed
from ..patchable_graph import PatchableGraph
from .asked import KEY
from .folder import Folder
from .steered import Steered
from .wire import Wire

_log = logging.getLogger(__name__)

# How many calls for requests are recorded, after that of the warm-up: with them, sizes that depend on the batch are
# ranges.
_RECORDED = 2


@dataclass(frozen=True)
class Part:
    """The part of a batch that is one request's: its rows from ``start`` on, the first of which is the token at
    position ``first`` of its text."""

    request: str
    start: int
    first: int
    tokens: int
    extra: Any  # the request's extra arguments


class Steering:
    """What is done in the calls of one model. The next call of it, which is that of the server's warm-up, is recorded.

    Args:
        instance: The server's start.
    """

    def __init__(self, model: Module, folder: Folder, instance: str) -> None:
        self.graph = PatchableGraph.watching(model)
        self._recorder = self.graph._recorder
        self._recorder.skip(self, True)  # what cannot be applied is reported, and the others of the batch go on
        self._folder, self._file = folder, folder.graph(instance)
        self._left, self._written = _RECORDED, False
        self._device = next((part.device for part in model.parameters()), torch.device("cpu"))
        self._requests: dict[str, Steered] = {}
        self._holds = False

    def warmed_up(self) -> None:
        """Writes what was recorded, for the processes that take requests. Raises OSError, so that no server starts
        without it."""
        if not self._written:
            self._write()

    def pause(self) -> None:
        """To be called before a call of the model that is for no request."""
        self._place([], 0)

    def _write(self) -> None:
        if lib.gp_graphs_count(Graphs(made(lib.gp_session_graphs, self._recorder.session)).handle):
            self.graph.save_graph(self._folder.place(self._file))
            self._written = True

    @contextlib.contextmanager
    def batch(self, parts: list[Part], total: int, living: Container[str]) -> Generator[None, None, None]:
        """Inside the block, a call of the model has ``total`` tokens, of these requests.

        Args:
            living: The requests that have not ended. The clients of others have gone.
        """
        try:
            self._forget(living)
            self._place(parts, total)
        except Exception as error:
            self._failed(parts, error)
        if not self._left:
            yield
            return
        with self.graph.recording():
            yield
        self._left -= 1
        try:
            self._write()
        except OSError as error:
            _log.error("libgraphpatch: the graph in %s stays as the warm-up left it: %s", self._file, error)

    def _failed(self, parts: list[Part], error: Exception) -> None:
        """An error of ours must not end the engine, nor change what is computed: all patches go, and their requests'
        reports say why."""
        _log.error("libgraphpatch: no request of a batch was patched", exc_info=error)
        for part in parts:
            if steered := self._requests.get(part.request):
                steered.fail(error)

    def _place(self, parts: list[Part], total: int) -> None:
        present = set()
        for part in parts:
            steered = self._requests.get(part.request)
            if steered is None:
                if not part.extra or KEY not in part.extra:
                    continue
                steered = self._requests[part.request] = self._begin(part.extra[KEY])
            present.add(part.request)
            try:
                steered.place(part.start, part.first, part.tokens, total)
            except Exception as error:
                _log.error("libgraphpatch: request %s is not patched", part.request, exc_info=error)
                steered.fail(error)
        for request, steered in self._requests.items():
            if request not in present:
                steered.remove()
        holds = any(steered.holds for steered in self._requests.values())
        if holds != self._holds:
            self._holds = holds
            self._recorder.want(1 if holds else -1)

    def _begin(self, carried: Any) -> Steered:
        try:
            return Steered(Wire.unpacked(carried), self._recorder.session, self._device)
        except Exception as error:  # it came by a way that checks nothing
            steered = Steered(Wire([]), self._recorder.session, self._device)
            steered.fail(error)
            return steered

    def _forget(self, living: Container[str]) -> None:
        for request in [request for request in self._requests if request not in living]:
            self._requests.pop(request).remove()

    def report(self, request: str, tokens: int, ended: bool) -> dict[str, Any] | None:
        """What came of a request's patches, and the file of what its probes have kept. None if it was never computed.

        Args:
            tokens: How many tokens it has, of which the last one was not computed from.
        """
        steered = self._requests.get(request)
        if steered is None:
            return None  # it ended before a token of it was computed
        steered.remove()
        told = steered.report()
        if ended:
            del self._requests[request]
            if steered.wire.kept:
                told["kept"] = steered.wire.kept
                _save(steered.kept(tokens - 1), self._folder.place(self._folder.path / steered.wire.kept))
        return told


def _save(values: dict[str, torch.Tensor], file: Path) -> None:
    save_file = needed("safetensors.torch", "safetensors").save_file
    with beside(file) as part:
        save_file({path: value.contiguous().cpu() for path, value in values.items()}, part)
