"""What the tests of the installed tree share: tools, a clean environment, building against the tree."""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from support import PROGRAMS, ROOT, TIMEOUT, graphpatch

VERSION = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.M)[1]
EXAMPLES = ROOT / "bindings/cpp/examples"
TORCH = Path(torch.__path__[0])


def tool(name: str) -> str:
    """A program that tests/requirements.txt installs beside the interpreter, or the machine's own."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"{name} is missing: install what tests/requirements.txt names"
    return found


def clean(home: Path, **more: Any) -> dict[str, str]:
    """Environment variables for a process that has only the system's programs and an empty home."""
    home.mkdir(parents=True, exist_ok=True)
    return {"PATH": "/usr/bin:/bin", "HOME": str(home), **{name: str(value) for name, value in more.items()}}


def run(args: Sequence[Any], **options: Any) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(arg) for arg in args], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT, **options
    )


def good(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def make(*args: Any) -> None:
    good(run(["make", *args], cwd=ROOT))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def take_adapter(prefix: Path) -> None:
    """Copies the adapter for the tests' libtorch into the tree, as one does for a machine without a compiler."""
    told = graphpatch("doctor", "--build", "--", PROGRAMS / "runner").ok().stdout
    adapter = re.search(r"\S+/adapter-\S+\.so", told)
    assert adapter, told
    folder = prefix / "lib/graphpatch-adapters"
    folder.mkdir()
    shutil.copy(adapter[0], folder)


def build(example: str, way: str, prefix: Path, folder: Path) -> Path:
    """Builds a copy of an example against the installed tree with nothing else around: by CMake or by pkg-config."""
    environment = clean(
        folder / "home",
        PKG_CONFIG=tool("pkg-config"),
        PKG_CONFIG_PATH=prefix / "lib/pkgconfig",
        CXXFLAGS="-O0 -Wall -Wextra -Werror",
    )
    shutil.copytree(EXAMPLES, folder / "examples")
    source = folder / "examples" / example
    if way == "pkg-config":
        good(run(["make", f"TORCH={TORCH}"], cwd=source, env=environment))
        return source / example
    good(
        run(
            [
                tool("cmake"),
                "-S",
                source,
                "-B",
                folder / "build",
                "-G",
                "Ninja",
                f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
                f"-DCMAKE_PREFIX_PATH={prefix};{TORCH}",
            ],
            env=environment,
        )
    )
    good(run([tool("cmake"), "--build", folder / "build"], env=environment))
    return folder / "build" / example
