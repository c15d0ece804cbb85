"""Two demos in one checkout: one may rebuild the program while the other runs it."""

import shutil
import subprocess
from pathlib import Path

from support import ROOT

# A stand-in for the compiler. Like real ones, it writes into the output file itself, which fails for a running program.
COMPILER = """#!/bin/sh
while [ "$1" != -o ]; do shift; done
cat "$(command -v sleep)" > "$2" && chmod +x "$2"
"""


def test_a_program_that_runs_is_made_anew(tmp_path: Path) -> None:
    compiler, source = tmp_path / "c++", tmp_path / "tests/programs/cpp/infer.cpp"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    (tmp_path / "build/demo").mkdir(parents=True)
    (tmp_path / "build/demo/torch.mk").touch()
    (tmp_path / "tests/demo").mkdir(parents=True)
    shutil.copy(ROOT / "tests/demo/program.mk", tmp_path / "tests/demo")
    source.parent.mkdir(parents=True)
    source.touch()
    make = ["make", "-s", "-f", "tests/demo/program.mk", f"CXX={compiler}"]
    subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
    program = tmp_path / "build/demo/bin/infer"
    first = program.stat().st_ino
    with subprocess.Popen([program, "600"]) as running:
        try:
            done = subprocess.run([*make, "-B"], cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert running.poll() is None
        finally:
            running.kill()
    assert program.stat().st_ino != first
    assert [file.name for file in program.parent.iterdir()] == ["infer"]
