"""What can go wrong, as Python exceptions."""

from __future__ import annotations


class GraphPatchError(RuntimeError):
    """A call of the library failed; the message says what, where and what to do."""


class PatchError(GraphPatchError):
    """A patch could not be applied in a run: the slice does not fit the shape, say. The message names path and
    shape. One for which PyTorch has an exception of its own is of that class, too."""

    def __new__(cls, *said: object) -> PatchError:
        kind = _kind(str(said[0])) if cls is PatchError and said else cls
        return super().__new__(kind)


class PatchIndexError(PatchError, IndexError):
    """A :class:`PatchError` for a slice that does not fit today's sizes; PyTorch raises an IndexError."""


class PatchTypeError(PatchError, TypeError):
    """A :class:`PatchError` for a value of a type that cannot be put there; PyTorch raises a TypeError."""


def _kind(text: str) -> type[PatchError]:
    """Which PatchError a message is of; its parts are the library's and libtorch's."""
    why = text.partition(" cannot be applied at ")[2]
    if any(part in why for part in (" out of bounds ", "too many indices", " out of range ", "shape of the mask")):
        return PatchIndexError
    return PatchTypeError if "into another type" in why else PatchError


class Stopped(Exception):
    """A :class:`StopPatch` has ended a run. Its block swallows it; only who catches it inside the block, or uses
    :meth:`PatchableGraph.edit`, gets to see it.

    Attributes:
        patch: That patch.
    """

    def __init__(self, patch: object) -> None:
        super().__init__("a StopPatch has ended the run")
        self.patch = patch


class MissingPatchWarning(UserWarning):
    """A patch that held in a block, and that no run came by. The message names its path and says why that may be."""


class PickleError(TypeError, ValueError):
    """A PatchableGraph was pickled, by ``torch.save`` say."""


class OptionWarning(UserWarning):
    """An option of :class:`ExtractionOptions` has no effect here, or what it asks for failed."""


class AdapterError(GraphPatchError):
    """The process's libtorch, or the adapter for it, cannot be used; ``graphpatch doctor`` says more."""


class PathError(KeyError):
    """Paths that name no leaf. A KeyError whose text is shown as it is, line by line."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""
