"""The interpreter's own classes for threads. gevent and eventlet put others in their place, which belong to greenlets.
A program may have done so before it imports this package.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any


def _own(name: str, given: Any) -> Any:
    """The interpreter's class of this name in ``_thread``. Nothing takes a class from the list that is searched."""
    known = type.__subclasses__(object)
    return next((kind for kind in known if kind.__module__ == "_thread" and kind.__name__ == name), given)


if TYPE_CHECKING:
    from threading import RLock, local
else:
    local, RLock = _own("_local", threading.local), _own("RLock", threading.RLock)


def this_thread() -> int:
    """The number of this thread among `sys._current_frames()`. gevent's ``threading.get_ident`` gives a greenlet's."""
    # Not the frame itself: it would hold itself, and so all that its callers hold until garbage is collected.
    own = id(sys._getframe())
    return next(number for number, frame in sys._current_frames().items() if id(frame) == own)


__all__ = ["RLock", "local", "this_thread"]
