"""The library itself: this module finds and loads it, calls it by ctypes, and turns its statuses into exceptions.

Tensors cross as addresses of libtorch's ``at::TensorImpl``. A call made through :data:`lib` releases the GIL while it
runs; what the header says of its thread rule, of NULL and of its errors holds here too.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from ._header import ABI_VERSION, CALLS, EXCEPTIONS, GP_STATUS_OK
from .errors import GraphPatchError

NAME = "libgraphpatch.so"

SizedStruct = TypeVar("SizedStruct", bound=ctypes.Structure)


def _candidates() -> Iterator[Path]:
    """Where the library may lie: where `graphpatch attach` says that it is loaded already, or at the path that the user
    names, else beside this file (an installed package) or in the build folder of a checkout."""
    named = getattr(sys.modules.get(__package__ or ""), "LIBRARY", None) or os.environ.get("GRAPHPATCH_LIBRARY")
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


def _declare(library: ctypes.CDLL) -> None:
    """Tells ctypes what each call takes and answers."""
    for name, (result, arguments) in CALLS.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            raise ImportError(f"{library._name} is another version than this package: it has no {name}") from None
        function.restype, function.argtypes = result, arguments
    if library.gp_abi_version() != ABI_VERSION:
        raise ImportError(
            f"{library._name} has ABI {library.gp_abi_version()}, this package needs {ABI_VERSION}: take both from one"
            " version"
        )


lib = _load()
_declare(lib)

__version__: str = lib.gp_version().decode()


# --- what calls answer ------------------------------------------------------------------------------------------------


def message() -> str:
    """What the last failing call on this thread had to say."""
    said: bytes = lib.gp_last_error()
    return said.decode(errors="replace")


def fail(status: int, said: str | None = None) -> NoReturn:
    """Raises the exception that a status other than GP_STATUS_OK stands for. ``said`` is its message, if other calls
    were made since."""
    raise EXCEPTIONS.get(status, GraphPatchError)(message() if said is None else said)


def check(status: int) -> None:
    """Raises unless the call went well."""
    if status != GP_STATUS_OK:
        fail(status)


def made(function: Callable[..., int], *arguments: Any) -> int:
    """The address that a call hands over through its last argument; 0 for NULL. The caller owns the object there."""
    out = ctypes.c_void_p()
    check(function(*arguments, ctypes.byref(out)))
    return out.value or 0


def text(function: Callable[..., int], *arguments: Any) -> str:
    """The text that a call hands over through its last argument."""
    return taken(made(function, *arguments))


def taken(address: int) -> str:
    """The text at an address that a call handed over; it is freed."""
    try:
        return ctypes.string_at(address).decode(errors="replace")
    finally:
        lib.gp_string_free(address)


# --- what calls take --------------------------------------------------------------------------------------------------


def texts(values: Iterable[str]) -> Any:
    """A C array of texts."""
    encoded = [value.encode() for value in values]
    return (ctypes.c_char_p * len(encoded))(*encoded)


def sized(kind: type[SizedStruct]) -> SizedStruct:
    """A struct that the library fills: it begins with its size, and all else is 0."""
    return kind(ctypes.sizeof(kind))
