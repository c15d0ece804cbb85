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
    # Not imported with the package: where that comes before torch, under `graphpatch run`, the import of torch does it.
    importlib.import_module("._outermost", __package__).install()


def stop_live() -> None:
    """Listens no more, and takes away what clients have patched. Nothing happens where nobody listens."""
    check(lib.gp_live_stop())
