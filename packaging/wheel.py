"""Makes a wheel for every Python 3 from what the Makefile has built for an older glibc: the package, the library, the
command, headers, completions, the manual's pages, and adapters that were built ahead.

    python wheel.py ADAPTERS OUT_FOLDER [GLIBC]

A wheel is a zip file with a list of what is in it, so the standard library is enough. Its platform is the oldest one
whose C and C++ libraries have all symbols that its programs ask for. Where GLIBC is given, as 2.28, a program that asks
for more is an error.
"""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILT = ROOT / "target/older-glibc/release"
# Every file has this time, so that the same files make the same wheel.
EPOCH = (1980, 1, 1, 0, 0, 0)

Version = tuple[int, ...]
# The platforms by their glibc, and the newest symbols of the C++ library that each has (as auditwheel knows them).
PLATFORMS: dict[Version, Version] = {
    (2, 17): (3, 4, 19),
    (2, 28): (3, 4, 24),
    (2, 31): (3, 4, 28),
    (2, 34): (3, 4, 29),
    (2, 35): (3, 4, 30),
    (2, 39): (3, 4, 33),
}


def version() -> str:
    (found,) = re.findall(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text("utf-8"), re.M)[:1]
    return found


def asked(binary: Path) -> list[tuple[str, Version, str]]:
    """The symbols with a version that it asks for: of which library, the version, the name."""
    listed = subprocess.run(["objdump", "-T", binary], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"\*UND\*.*?\b(GLIBC|GLIBCXX)_([\d.]+)\)?\s+(\S+)$", listed, re.M)
    return [(library, tuple(map(int, version.split("."))), name) for library, version, name in found]


def has(platform: Version, library: str, version: Version) -> bool:
    return version <= (platform if library == "GLIBC" else PLATFORMS[platform])


def platform_of(binaries: list[Path], most: Version | None) -> str:
    """The name of the oldest platform that has all symbols."""
    if most and most not in PLATFORMS:
        sys.exit(f"there is no platform with glibc {'.'.join(map(str, most))} in PLATFORMS")
    for binary in binaries if most else []:
        lacking = sorted(
            f"{name}@{library}_{'.'.join(map(str, version))}"
            for library, version, name in asked(binary)
            if not has(most, library, version)
        )
        if lacking:
            sys.exit(f"{binary} does not run with glibc {'.'.join(map(str, most))}: it asks for {', '.join(lacking)}")
    symbols = [symbol for binary in binaries for symbol in asked(binary)]
    for platform in PLATFORMS:
        if all(has(platform, library, version) for library, version, _ in symbols):
            return "manylinux_{}_{}_x86_64".format(*platform)
    sys.exit("a program asks for symbols that are newer than all platforms known here: add the newest one to PLATFORMS")


def without_debug(binary: Path, folder: Path) -> Path:
    to = folder / binary.name
    subprocess.run(["strip", "--strip-all", "-o", to, binary], check=True)
    return to


def files(adapters: Path, folder: Path) -> dict[str, Path]:
    """Name in the wheel to file."""
    package = ROOT / "bindings/python/libgraphpatch"
    modules = [*sorted(package.rglob("*.py")), package.with_name("graphpatch_vllm.py")]
    found = {str(file.relative_to(package.parent)): file for file in modules}
    found["libgraphpatch/py.typed"] = package / "py.typed"
    for name in ("libgraphpatch.so", "graphpatch"):
        found[f"libgraphpatch/{name}"] = without_debug(BUILT / name, folder)
    # Adapters are sealed: as they are.
    for adapter in sorted(adapters.glob("adapter-*.so")):
        found[f"libgraphpatch/graphpatch-adapters/{adapter.name}"] = adapter
    for header in [ROOT / "include/graphpatch.h", ROOT / "bindings/cpp/graphpatch.hpp"]:
        found[f"libgraphpatch/include/{header.name}"] = header
    for header in sorted((ROOT / "bindings/cpp/graphpatch").glob("*.hpp")):
        found[f"libgraphpatch/include/graphpatch/{header.name}"] = header
    data = f"libgraphpatch-{version()}.data"
    found[f"{data}/scripts/graphpatch"] = ROOT / "packaging/graphpatch"
    command = BUILT / "graphpatch"
    subprocess.run([command, "complete", "--man", folder], check=True)
    for page in sorted(folder.glob("*.1")):
        found[f"{data}/data/share/man/man1/{page.name}"] = page
    for shell, place in [
        ("bash", "bash-completion/completions/graphpatch"),
        ("zsh", "zsh/site-functions/_graphpatch"),
        ("fish", "fish/vendor_completions.d/graphpatch.fish"),
    ]:
        script = folder / f"completion.{shell}"
        script.write_bytes(
            subprocess.run([command, "complete", "--shell", shell], capture_output=True, check=True).stdout
        )
        found[f"{data}/data/share/{place}"] = script
    for name in ("LICENSE-MIT", "LICENSE-APACHE"):
        found[f"libgraphpatch-{version()}.dist-info/licenses/{name}"] = ROOT / name
    return found


def metadata() -> str:
    readme = (ROOT / "bindings/python/README.md").read_text("utf-8")
    project = (ROOT / "bindings/python/pyproject.toml").read_text("utf-8")
    (summary,) = re.findall(r'^description = "(.*)"$', project, re.M)
    (python,) = re.findall(r'^requires-python = "(.*)"$', project, re.M)
    (needed,) = re.findall(r"^dependencies = \[(.*)\]$", project, re.M)
    lines = [
        "Metadata-Version: 2.4",
        "Name: libgraphpatch",
        f"Version: {version()}",
        f"Summary: {summary}",
        "License-Expression: MIT OR Apache-2.0",
        "License-File: LICENSE-MIT",
        "License-File: LICENSE-APACHE",
        f"Requires-Python: {python}",
        *(f"Requires-Dist: {each}" for each in re.findall(r'"([^"]+)"', needed)),
        "Description-Content-Type: text/markdown",
    ]
    return "\n".join(lines) + "\n\n" + readme


def entry_points() -> str:
    """The groups of entry points of the package, which have the same form in both files."""
    project = (ROOT / "bindings/python/pyproject.toml").read_text("utf-8")
    groups = re.findall(r'^\[project\.entry-points\."(.*)"\]\n((?:\w.*\n)+)', project, re.M)
    return "".join(f"[{group}]\n{points.replace(chr(34), '')}" for group, points in groups)


def main() -> None:
    adapters, out = Path(sys.argv[1]), Path(sys.argv[2])
    most = tuple(map(int, sys.argv[3].split("."))) if len(sys.argv) > 3 else None
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        found = {name: file.read_bytes() for name, file in files(adapters, Path(scratch)).items()}
    binaries = [BUILT / "libgraphpatch.so", BUILT / "graphpatch", *adapters.glob("adapter-*.so")]
    platform = platform_of(binaries, most)
    info = f"libgraphpatch-{version()}.dist-info"
    found[f"{info}/METADATA"] = metadata().encode()
    found[f"{info}/entry_points.txt"] = entry_points().encode()
    kind = f"Root-Is-Purelib: false\nTag: py3-none-{platform}\n"
    found[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: packaging/wheel.py\n{kind}".encode()
    record = ""
    for name, content in found.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(content)}\n"
    found[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    wheel = out / f"libgraphpatch-{version()}-py3-none-{platform}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in found.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            runs = name.endswith(("/graphpatch", ".so")) and "completions" not in name
            entry.external_attr = (0o100755 if runs else 0o100644) << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED, 9)
    print(wheel)


if __name__ == "__main__":
    main()
