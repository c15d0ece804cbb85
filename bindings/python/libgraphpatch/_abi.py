"""The C ABI by ctypes: finds and loads the library, turns status codes into exceptions.

Tensors cross as addresses of libtorch's ``at::TensorImpl``. A call made through :data:`lib` releases the GIL while it
runs.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any, Callable, Iterable, NoReturn, Optional

from ._prototypes import ABI_VERSION, PROTOTYPES
from .errors import AdapterError, GraphPatchError, PatchError

NAME = "libgraphpatch.so"


def _candidates() -> Iterable[Path]:
    """Where the library may lie: where the user says, beside this file (installed), in a checkout's build folder."""
    named = os.environ.get("GRAPHPATCH_LIBRARY")
    if named:
        yield Path(named)
        return
    here = Path(__file__).resolve().parent
    yield here / NAME
    if len(here.parents) > 2:
        yield here.parents[2] / "target" / "release" / NAME


def _load() -> ctypes.CDLL:
    tried = []
    for path in _candidates():
        if path.exists():
            return ctypes.CDLL(str(path))
        tried.append(str(path))
    raise ImportError(
        f"{NAME} was not found ({', '.join(tried)}): build it (`cargo build --release`), install the package with"
        " `pip install ./bindings/python`, or name the file in GRAPHPATCH_LIBRARY"
    )


lib = _load()
for _name, (_result, _arguments) in PROTOTYPES.items():
    try:
        _function = getattr(lib, _name)
    except AttributeError:
        raise ImportError(f"{lib._name} is another version than this package: it has no {_name}") from None
    _function.restype, _function.argtypes = _result, _arguments
if lib.gp_abi_version() != ABI_VERSION:
    raise ImportError(f"{lib._name} has ABI {lib.gp_abi_version()}, this package needs {ABI_VERSION}: take both from one version")

__version__ = lib.gp_version().decode()

class PathError(KeyError):
    """Paths that name no leaf. A KeyError whose text is shown as it is, line by line."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


# By gp_status.
_ERRORS = {1: ValueError, 2: ValueError, 3: PathError, 4: ValueError, 5: PatchError, 6: OSError, 7: ValueError,
           8: AdapterError, 9: AdapterError}


def message() -> str:
    """What the last failing call on this thread had to say."""
    return lib.gp_last_error().decode(errors="replace")


def fail(status: int) -> NoReturn:
    """Raises what a status other than 0 stands for."""
    raise _ERRORS.get(status, GraphPatchError)(message())


def check(status: int) -> None:
    """Raises unless the call went well."""
    if status:
        fail(status)


def made(function: Callable[..., int], *arguments: Any) -> int:
    """What a call hands over through its last argument, an address."""
    out = ctypes.c_void_p()
    check(function(*arguments, ctypes.byref(out)))
    return out.value or 0


def text(function: Callable[..., int], *arguments: Any) -> str:
    """The text that a call hands over through its last argument."""
    address = made(function, *arguments)
    try:
        return ctypes.string_at(address).decode(errors="replace")
    finally:
        lib.gp_string_free(address)


def texts(values: Iterable[str]) -> Any:
    """A C array of texts."""
    encoded = [value.encode() for value in values]
    return (ctypes.c_char_p * len(encoded))(*encoded)


def encoded(value: Optional[str]) -> Optional[bytes]:
    return None if value is None else value.encode()
