"""The C ABI from C, on a real module; and the header by itself."""

import subprocess
from pathlib import Path
from typing import Callable

import pytest

from support import PROGRAMS, ROOT, Saved

HEADER = ROOT / "include" / "graphpatch.h"


@pytest.mark.parametrize("kind", ["scripted", "traced"])
def test_session_from_c(tuple_output: Callable[[str], Saved], kind: str) -> None:
    saved = tuple_output(kind)
    done = subprocess.run([PROGRAMS / "c_session", saved.model], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("all as it must be\n")


@pytest.mark.parametrize("compiler, language, standard", [
    ("cc", "c", "c99"), ("cc", "c", "c17"), ("c++", "c++", "c++17"), ("c++", "c++", "c++20"),
])
def test_header_compiles_alone_and_twice(compiler: str, language: str, standard: str, tmp_path: Path) -> None:
    source = tmp_path / "twice.txt"
    source.write_text(f'#include "{HEADER}"\n#include "{HEADER}"\nint use(void);\n'
                      "int use(void) { return gp_version() == 0; }\n")
    done = subprocess.run([compiler, "-x", language, f"-std={standard}", "-Wall", "-Wextra", "-pedantic", "-Werror",
                           "-fsyntax-only", source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
