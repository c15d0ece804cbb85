"""Live control: other programs of this user look at this process, and patch it, while it runs."""

from __future__ import annotations

import importlib

from ._library import check, lib


def live() -> None:
    """Listens for ``graphpatch live`` on a unix socket that this user alone can open.

    From then on every module that is called outside of another one's call is a root, as under ``graphpatch run``;
    what a client asks for holds beside the patches of this program. Nothing is recorded or patched until a client
    asks. A second call does nothing. A forked child does not listen until it calls this itself. Raises AdapterError
    where the adapter cannot be had, and OSError where there can be no socket.
    """
    check(lib.gp_live_start(None))
    # Not imported with the package. If a program imports the package before torch under `graphpatch run`, the import of
    # torch imports `_outermost`.
    importlib.import_module("._outermost", __package__).install()


def stop_live() -> None:
    """Stops listening, and removes the patches of clients. Does nothing if this process does not listen."""
    check(lib.gp_live_stop())
