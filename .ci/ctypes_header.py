"""Makes the Python package's view of the C header: its numbers, structs, callbacks and calls for ctypes, and which
exception each status stands for. `python ctypes_header.py HEADER OUT`, with libclang's module for Python in the path.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from clang.cindex import Cursor, CursorKind, Index, Type, TypeKind

# What Python raises for each status. A status that the header has and this table lacks stops the generation.
EXCEPTIONS = {
    "GP_STATUS_ARGUMENT": "ValueError",
    "GP_STATUS_PARSE": "ValueError",
    "GP_STATUS_PATH": "PathError",
    "GP_STATUS_SLICE": "ValueError",
    "GP_STATUS_REFUSED": "PatchError",
    "GP_STATUS_FILE": "OSError",
    "GP_STATUS_FORMAT": "ValueError",
    "GP_STATUS_TORCH": "AdapterError",
    "GP_STATUS_ADAPTER": "AdapterError",
    "GP_STATUS_STATE": "GraphPatchError",
    "GP_STATUS_INTERNAL": "GraphPatchError",
}

# ctypes names of numbers, by the header's names for them and by clang's own names for the same types.
NUMBERS = {
    "bool": "c_bool",
    "_Bool": "c_bool",
    "char": "c_char",
    "double": "c_double",
    "int32_t": "c_int32",
    "int": "c_int32",
    "gp_status": "c_int32",
    "uint32_t": "c_uint32",
    "int64_t": "c_int64",
    "uint64_t": "c_uint64",
    "size_t": "c_size_t",
}
# The Python type that reading a struct's member of each ctypes type gives.
READ_AS = {
    "c_bool": "bool",
    "c_char": "bytes",
    "c_double": "float",
    "c_void_p": "int | None",
    "c_char_p": "bytes | None",
}

PREFACE = '''"""The C header as ctypes has it: numbers, structs, callbacks and calls under the header's names, and the
exception that each status stands for. Generated from include/graphpatch.h (`make generate`).

A pointer to text that is borrowed is a c_char_p; every other pointer that a call takes, and every function, is an
address.
"""

from __future__ import annotations

from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_bool,
    c_char,
    c_char_p,
    c_double,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Any, Final

from .errors import AdapterError, GraphPatchError, PatchError, PathError
'''


def number(kind: Type) -> str:
    """What ctypes calls a type that is no pointer."""
    name = re.sub(r"\bconst\b|\s", "", kind.spelling)
    if name not in NUMBERS:
        raise SystemExit(f"the header has a type that is not known here: {kind.spelling}")
    return NUMBERS[name]


def is_text(kind: Type) -> bool:
    """Whether it is a pointer to text that is borrowed."""
    pointee = kind.get_pointee()
    return pointee.kind == TypeKind.CHAR_S and pointee.is_const_qualified()


def is_pointer(kind: Type) -> bool:
    return kind.get_canonical().kind == TypeKind.POINTER


def argument(kind: Type) -> str:
    """What a call takes or answers."""
    if kind.kind == TypeKind.VOID:
        return "None"
    if not is_pointer(kind):
        return number(kind)
    return "c_char_p" if is_text(kind) else "c_void_p"


def callback(kind: Type) -> str:
    """What a function of the caller's takes: where it answers through a pointer, one that can be written."""
    pointee = kind.get_canonical().get_pointee()
    return "POINTER(c_void_p)" if pointee.kind == TypeKind.POINTER else argument(kind)


def struct(cursor: Cursor) -> Iterator[str]:
    members = [
        (field.spelling, argument(field.type)) for field in cursor.underlying_typedef_type.get_canonical().get_fields()
    ]
    yield f"\n\nclass {cursor.spelling}(Structure):"
    yield from (f"    {name}: {READ_AS.get(kind, 'int')}" for name, kind in members)
    yield "    _fields_ = ["
    yield from (f'        ("{name}", {kind}),' for name, kind in members)
    yield "    ]"


def parse(header: str) -> list[Cursor]:
    """The header's own declarations, in order."""
    include = subprocess.run(["cc", "-print-file-name=include"], capture_output=True, text=True, check=True)
    arguments = ["-x", "c", "-std=c99", "-isystem", include.stdout.strip()]
    unit = Index.create().parse("header.h", arguments, unsaved_files=[("header.h", header)])
    wrong = [str(diagnostic) for diagnostic in unit.diagnostics if diagnostic.severity >= 3]
    if wrong:
        raise SystemExit("\n".join(wrong))
    return [cursor for cursor in unit.cursor.get_children() if cursor.location.file.name == "header.h"]


def constants(header: str, cursors: list[Cursor]) -> Iterator[str]:
    version = found(header, r"^#define GRAPHPATCH_ABI_VERSION (\d+)$")
    yield f"\nABI_VERSION: Final = {version}\n"
    for enum in cursors:
        if enum.kind == CursorKind.ENUM_DECL:
            yield from (f"{each.spelling}: Final = {each.enum_value}" for each in enum.get_children())
            yield ""
    # This number is in no enum; only the comment of gp_wants gives it.
    bit = found(header, r"From bit (\d+) on the number\s[/\s]*holds\s[/\s]*the\s[/\s]*scope's place")
    yield "# How far a number of gp_wants is shifted to the right for the scope's place among the patches."
    yield f"GP_WANTS_PLACE_SHIFT: Final = {bit}"


def found(header: str, pattern: str) -> str:
    match = re.search(pattern, header, flags=re.M)
    if match is None:
        raise SystemExit(f"the header does not say {pattern!r} any more")
    return match[1]


def exceptions(cursors: list[Cursor]) -> Iterator[str]:
    statuses = [
        each.spelling
        for enum in cursors
        if enum.kind == CursorKind.ENUM_DECL and enum.spelling == "gp_status"
        for each in enum.get_children()
        if each.enum_value != 0
    ]
    if set(statuses) != set(EXCEPTIONS):
        raise SystemExit(f"{sys.argv[0]}: no exception is known for {set(statuses) ^ set(EXCEPTIONS)}")
    yield "\n# By gp_status."
    yield "EXCEPTIONS: Final[dict[int, type[Exception]]] = {"
    yield from (f"    {status}: {EXCEPTIONS[status]}," for status in statuses)
    yield "}"


def generated(header: str) -> str:
    cursors = parse(header)
    lines = [PREFACE, *constants(header, cursors), *exceptions(cursors)]
    typedefs = [cursor for cursor in cursors if cursor.kind == CursorKind.TYPEDEF_DECL]
    for cursor in typedefs:
        kind = cursor.underlying_typedef_type.get_canonical()
        if kind.kind == TypeKind.RECORD and kind.get_size() > 0:
            lines += struct(cursor)
    lines.append("\n")
    for cursor in typedefs:
        pointee = cursor.underlying_typedef_type.get_pointee()
        if pointee.kind == TypeKind.FUNCTIONPROTO:
            types = [argument(pointee.get_result()), *map(callback, pointee.argument_types())]
            lines.append(f"{cursor.spelling} = CFUNCTYPE({', '.join(types)})")
    lines += [
        "",
        "# By name: what a call answers, and what it takes.",
        "CALLS: Final[dict[str, tuple[Any, list[Any]]]] = {",
    ]
    for cursor in cursors:
        if cursor.kind == CursorKind.FUNCTION_DECL:
            types = ", ".join(argument(given.type) for given in cursor.get_arguments())
            lines.append(f'    "{cursor.spelling}": ({argument(cursor.result_type)}, [{types}]),')
    return "\n".join([*lines, "}", ""])


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(generated(Path(sys.argv[1]).read_text(encoding="utf-8")), encoding="utf-8")
