"""Values of patches that lie in files: a steering vector of another program's, say."""

from __future__ import annotations

from torch import Tensor

from ._dlpack import taken
from ._handle import Handle
from ._library import lib, made


def load_tensor(text: str) -> Tensor:
    """The tensor that ``@FILE#KEY`` means in the text of a patch: of a safetensors or GGUF file (a control vector of
    llama.cpp's), of what ``torch.save`` wrote (``@v.pt``, ``@v.pt#key``), or ``@v.npy``. Nothing in a file is run.

    >>> vector = load_tensor("@steer.gguf#direction.12")

    Raises OSError for a file that cannot be read, and ValueError for text without a file, and for a file that is
    damaged or has no such tensor.
    """
    if not text.startswith("@"):
        raise ValueError(f"{text!r}: a tensor in a file is written @FILE#KEY")
    value = Handle(lib.gp_value_free, made(lib.gp_value_text, text.encode()))
    return taken(made(lib.gp_value_tensor, value))
