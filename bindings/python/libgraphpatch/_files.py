"""Files that are written beside the old ones and then take their places, so that a failure loses no file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def beside(file: str | os.PathLike[str]) -> Generator[Path]:
    """The name of a new file to write into. It takes the place of ``file`` when the block ends without an exception."""
    target = Path(os.path.realpath(file))
    if target.exists() and not target.is_file():  # a device or a pipe has no place to take
        yield target
        return
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield part
        if target.exists():
            shutil.copymode(target, part)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
