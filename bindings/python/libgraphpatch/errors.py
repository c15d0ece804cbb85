"""What can go wrong, as Python exceptions."""

from __future__ import annotations


class GraphPatchError(RuntimeError):
    """A call of the library failed; the message says what, where and what to do."""


class PatchError(GraphPatchError):
    """A patch could not be applied in a run: the slice does not fit the shape, say. The message names path and
    shape."""


class MissingPatchWarning(UserWarning):
    """A patch that held in a block, and that no run came by. The message names its path and says why that may be."""


class AdapterError(GraphPatchError):
    """The process's libtorch, or the adapter for it, cannot be used; ``graphpatch doctor`` says more."""


class PathError(KeyError):
    """Paths that name no leaf. A KeyError whose text is shown as it is, line by line."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""
