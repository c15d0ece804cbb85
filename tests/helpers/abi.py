"""The C ABI by ctypes, as the header declares it: structures, calls that raise on errors, and a check for refusals."""

import ctypes
import re
from collections.abc import Callable, Sequence
from ctypes import (
    POINTER,
    byref,
    c_bool,
    c_char_p,
    c_double,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Any


class Device(ctypes.Structure):
    _fields_ = [("kind", c_int32), ("index", c_int32)]


class Dtype(ctypes.Structure):
    _fields_ = [("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16)]


class Tensor(ctypes.Structure):
    _fields_ = [
        ("data", c_void_p),
        ("device", Device),
        ("rank", c_int32),
        ("dtype", Dtype),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    ]


class ManagedTensor(ctypes.Structure):
    """DLPack's DLManagedTensorVersioned."""

    _fields_ = [
        ("major", c_uint32),
        ("minor", c_uint32),
        ("context", c_void_p),
        ("deleter", c_void_p),
        ("flags", c_uint64),
        ("tensor", Tensor),
    ]


class Counts(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t),
        ("matched", c_uint64),
        ("applied", c_uint64),
        ("failed", c_uint64),
        ("pending", c_uint64),
    ]


class Node(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t),
        ("kind", c_uint32),
        ("value", c_uint32),
        ("seen", c_uint32),
        ("rank", c_uint32),
        ("children", c_size_t),
    ]


class Leaf(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t),
        ("changed", c_bool),
        ("number", ctypes.c_char),
        ("tensor", c_void_p),
        ("integer", c_int64),
        ("real", c_double),
    ]


CALLBACK = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p, POINTER(c_void_p))
RELEASE = ctypes.CFUNCTYPE(None, c_void_p)
SOURCE = ctypes.CFUNCTYPE(None, c_void_p, c_void_p)

PLAIN = {
    "bool": c_bool,
    "double": c_double,
    "int64_t": c_int64,
    "uint64_t": c_uint64,
    "uint32_t": c_uint32,
    "size_t": c_size_t,
    "gp_patch_counts": Counts,
    "gp_leaf": Leaf,
    "gp_callback": CALLBACK,
    "gp_torch_callback": CALLBACK,
    "gp_release": RELEASE,
    "int32_t": c_int32,
    "gp_source_callback": SOURCE,
    "gp_status": c_int,
}


def c_type(text: str) -> Any:
    """The ctypes type for a type of the header. Opaque structs, and text that the caller frees, are addresses."""
    name, stars = re.sub(r"\b(const|struct)\b|\s|\*", "", text), text.count("*")
    kind = PLAIN.get(name)
    if kind is None:
        if not stars:
            return None  # void
        kind, stars = c_char_p if name == "char" and "const" in text else c_void_p, stars - 1
    for _ in range(stars):
        kind = POINTER(kind)
    return kind


class Failure(Exception):
    def __init__(self, status: str, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message


class Library:
    """The calls of the header. A status other than OK raises an exception. Remembers which calls were used."""

    def __init__(self, file: str, header: str) -> None:
        self.raw, code = ctypes.CDLL(file), re.sub(r"//.*|/\*(?s:.*?)\*/", "", header)
        self.statuses = {int(number): name for name, number in re.findall(r"GP_STATUS_(\w+) = (\d+)", code)}
        self.declared: dict[str, Any] = {}
        self.used: set[str] = set()
        for result, name, arguments in re.findall(r"^(\w[\w ]*?[ *]+)(gp_\w+)\(([^)]*)\);", code, flags=re.M):
            call = getattr(self.raw, name)
            call.restype = c_type(result)
            names = [] if arguments == "void" else [re.sub(r"\w+$", "", argument) for argument in arguments.split(",")]
            call.argtypes = [c_type(argument) for argument in names]
            self.declared[name] = (call, result.strip() == "gp_status")
        assert len(self.declared) == len(re.findall(r"\bgp_\w+\(", code)) > 50, "the header is not understood"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call, fallible = self.declared[f"gp_{name}"]

        def checked(*arguments: Any) -> Any:
            self.used.add(f"gp_{name}")
            answer = call(*[a.encode() if isinstance(a, str) else a for a in arguments])
            if fallible and answer:
                raise Failure(self.statuses[answer], self.last_error().decode())
            return None if fallible else answer

        return checked

    def new(self, name: str, *arguments: Any) -> Any:
        """A call that hands a pointer over by its last argument."""
        out = c_void_p()
        getattr(self, name)(*arguments, byref(out))
        return out

    def text(self, name: str, *arguments: Any) -> str:
        out = self.new(name, *arguments)
        value = ctypes.string_at(out).decode()
        self.string_free(out)
        return value

    def number(self, name: str, *arguments: Any, kind: Any = c_uint64) -> int:
        out = kind()
        getattr(self, name)(*arguments, byref(out))
        return out.value


class refused:
    """Asserts that a call in the block fails with this status, and that the message contains these words."""

    def __init__(self, status: str, *words: str) -> None:
        self.status, self.words = status, words

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, failure: Any, trace: Any) -> bool:
        assert isinstance(failure, Failure), f"not refused: {failure!r}"
        assert failure.status == self.status and all(word in failure.message for word in self.words), str(failure)
        return True


def texts(names: Sequence[str]) -> Any:
    """Texts as a C array."""
    return (c_char_p * len(names))(*[name.encode() for name in names])
