"""Puts everything in place, in each process of a server."""

from __future__ import annotations

import logging

from . import engine, front, http, worker
from .folder import VARIABLE, Folder

_log = logging.getLogger(__name__)


def install() -> None:
    """vLLM calls plugins once in each process. If this fails, the server does not start: a request that asks for
    patches must not be answered without them."""
    folder = Folder()
    front.install(folder)
    http.install()
    engine.install()
    worker.install(folder)
    _log.info("libgraphpatch: requests can be patched; %s is %s", VARIABLE, folder.path)
