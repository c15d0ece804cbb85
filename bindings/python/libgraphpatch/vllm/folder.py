"""The folder of a server: the values that its requests name lie in it, and it gets graphs and what probes have kept."""

from __future__ import annotations

import functools
import os
import re
import uuid
from pathlib import Path

from torch import Tensor

from .._value_file import load_tensor

# The environment variable that names the folder.
VARIABLE = "GRAPHPATCH_VLLM"

# The file's name in `@FILE#KEY`: up to a `#` without a `\` before it.
_FILE = re.compile(r"(?:[^\\#]|\\.)*", re.DOTALL)


class Folder:
    """The folder that :data:`VARIABLE` names. It is made where it is not there."""

    def __init__(self) -> None:
        self.path = Path(os.environ[VARIABLE]).resolve()

    def tensor(self, text: str) -> Tensor:
        """The tensor that ``@FILE#KEY`` means, ``FILE`` being relative to the folder. Clients name it, so nothing
        outside of the folder is read. A file is read once, until it changes. Raises ValueError."""
        matched = _FILE.match(text[1:])
        name = re.sub(r"\\(.)", r"\1", matched[0] if matched else "")
        file = (self.path / name).resolve()
        if not file.is_relative_to(self.path):
            raise ValueError(f"{text}: lies outside of the server's folder of values")
        try:
            state = file.stat()
            return _read(self._absolute(text), state.st_mtime_ns, state.st_size)
        except OSError as why:
            raise ValueError(f"{text}: cannot be read: {why.strerror or why}") from None

    def _absolute(self, text: str) -> str:
        folder = re.sub(r"([\\#])", r"\\\1", str(self.path))
        return f"@{folder}/{text[1:]}"

    def graph(self, instance: str) -> Path:
        """Where the graph of a server's model lies; each start of a server is an instance of its own."""
        return self.path / "graphs" / f"{instance}.json"

    def new_kept(self, request: str) -> str:
        """The name, relative to the folder, of a file for what the probes of a request keep. A client may choose the
        request's name, so it is reduced to letters and digits."""
        return f"kept/{re.sub(r'[^A-Za-z0-9_-]', '_', request)[:80]}-{uuid.uuid4().hex[:8]}.safetensors"

    def place(self, file: Path) -> Path:
        """The file, after the folder around it was made, which only this user may look into."""
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return file


@functools.lru_cache(maxsize=64)
def _read(text: str, _changed: int, _size: int) -> Tensor:
    return load_tensor(text)
