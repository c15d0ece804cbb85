"""The ABI of a header, read by clang's parser: signatures, layouts and numbers. `python reader.py HEADER` prints it as JSON."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "build/libclang-18.1.1"))

from clang.cindex import CursorKind, Index, TranslationUnit, TypeKind

HEADER = (ROOT / "include/graphpatch.h").read_text(encoding="utf-8")
# A call: its comment, its result, its name, its arguments.
FUNCTION = re.compile(r"((?:^//.*\n)+)(\w[\w ]*?[ *]+)(gp_\w+)\(([^)]*)\);", flags=re.M)


def read(text: str) -> dict[str, Any]:
    """What a compiled client relies on, of a header's text."""
    include = subprocess.run(
        ["cc", "-print-file-name=include"], capture_output=True, text=True, check=True
    ).stdout.strip()
    unit = Index.create().parse(
        "abi.h",
        ["-x", "c", "-std=c99", "-isystem", include],
        unsaved_files=[("abi.h", text)],
        options=TranslationUnit.PARSE_DETAILED_PROCESSING_RECORD,
    )
    wrong = [str(diagnostic) for diagnostic in unit.diagnostics if diagnostic.severity >= 3]
    assert not wrong, wrong
    abi: dict[str, Any] = {"number": None, "functions": {}, "structs": {}, "types": {}, "constants": {}}
    for cursor in unit.cursor.get_children():
        if cursor.location.file is None or cursor.location.file.name != "abi.h":
            continue
        if cursor.kind == CursorKind.FUNCTION_DECL:
            abi["functions"][cursor.spelling] = cursor.type.get_canonical().spelling
        elif cursor.kind == CursorKind.ENUM_DECL:
            abi["constants"].update({each.spelling: each.enum_value for each in cursor.get_children()})
        elif cursor.kind == CursorKind.TYPEDEF_DECL:
            kind = cursor.underlying_typedef_type.get_canonical()
            if kind.kind == TypeKind.RECORD and kind.get_size() > 0:
                abi["structs"][cursor.spelling] = {
                    "size": kind.get_size(),
                    "members": [
                        [
                            field.spelling,
                            field.type.get_canonical().spelling,
                            field.get_field_offsetof() // 8,
                            field.type.get_size(),
                        ]
                        for field in kind.get_fields()
                    ],
                }
            else:
                abi["types"][cursor.spelling] = kind.spelling
        elif cursor.kind == CursorKind.MACRO_DEFINITION and cursor.spelling == "GRAPHPATCH_ABI_VERSION":
            abi["number"] = int(list(cursor.get_tokens())[1].spelling)
    return abi


if __name__ == "__main__":
    print(json.dumps(read(Path(sys.argv[1]).read_text(encoding="utf-8")), indent=1))
