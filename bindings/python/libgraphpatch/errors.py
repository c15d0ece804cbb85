"""What can go wrong, as Python exceptions."""

from __future__ import annotations

from typing import Any


class GraphPatchError(RuntimeError):
    """A call of the library failed; the message says what, where and what to do."""


class PatchError(GraphPatchError):
    """A patch could not be applied in a run, for example because the slice does not fit the shape. The message names
    the path and the shape. If PyTorch has an exception class for such an error, this error is of that class, too."""

    def __new__(cls, *said: object) -> PatchError:
        kind: type[Any] = _kind(str(said[0])) if cls is PatchError and said else cls
        made: PatchError = super().__new__(kind)
        return made


class PatchIndexError(PatchError, IndexError):
    """A :class:`PatchError` for a slice that does not fit today's sizes; PyTorch raises an IndexError."""


class PatchTypeError(PatchError, TypeError):
    """A :class:`PatchError` for a value of a type that cannot be put there; PyTorch raises a TypeError."""


def _kind(text: str) -> type[PatchError]:
    """The class of PatchError for a message. The parts that are looked for are texts of the library and of libtorch."""
    why = text.partition(" cannot be applied at ")[2]
    if any(part in why for part in (" out of bounds ", "too many indices", " out of range ", "shape of the mask")):
        return PatchIndexError
    return PatchTypeError if "into another type" in why else PatchError


class Stopped(Exception):
    """A :class:`StopPatch` has ended a run. The block of the patch catches this exception. Code sees it only inside the
    block, or if it uses :meth:`PatchableGraph.edit`.

    Attributes:
        patch: The patch that has ended the run.
    """

    def __init__(self, patch: object) -> None:
        super().__init__("a StopPatch has ended the run")
        self.patch = patch


class MissingPatchWarning(UserWarning):
    """No run in a block reached the node of a patch. The message names its path and says why that may be."""


class PickleError(TypeError, ValueError):
    """A PatchableGraph cannot be pickled, as ``torch.save`` tries to do."""


class OptionWarning(UserWarning):
    """An option of :class:`ExtractionOptions` has no effect here, or what it asks for failed."""


class AdapterError(GraphPatchError):
    """The process's libtorch, or the adapter for it, cannot be used; ``graphpatch doctor`` says more."""


class PathError(KeyError):
    """Paths that name no leaf. A KeyError whose text is shown as it is, line by line."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""
