"""Puts a version of libtorch into a folder, for C++ programs: the torch package and the CUDA libraries that it cannot load without.

    python fetch.py VERSION FOLDER [PACKAGE...]

Each PACKAGE is put there as well, without its dependencies. Nothing is imported from there, so the wheel may be one for
another Python. Does nothing when it is there already.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

# The oldest Python that all supported versions have wheels for.
WHEELS = ["--python-version", "3.11", "--only-binary=:all:"]


def install(folder: Path, *what: str) -> None:
    """Installs packages into a folder by pip, whose messages go to stderr."""
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-compile"]
    command += ["--no-cache-dir", "--upgrade", *WHEELS, "--target", str(folder), *what]
    done = subprocess.run(command, stdout=sys.stderr.fileno(), stderr=subprocess.PIPE, text=True)
    # Shown only on failure: even on success pip warns that the interpreter's own packages have other versions.
    if done.returncode:
        sys.exit(f"error: pip cannot install {' '.join(what)}:\n{done.stderr}")


def cuda_runtime(metadata: str) -> list[str]:
    """libcudart and libcupti, as the wheel asks for them: by name, or as parts of cuda-toolkit. None for a CPU build."""
    asked = re.findall(r"^Requires-Dist: *(nvidia-cuda-(?:runtime|cupti)[\w-]*) *\(?(==[\w.]+)", metadata, re.M)
    toolkit = re.findall(r"^Requires-Dist: *cuda-toolkit\[[\w,]+\] *\(?(==[\w.]+)", metadata, re.M)
    return [name + version for name, version in asked] + [f"cuda-toolkit[cudart,cupti]{version}" for version in toolkit]


def main() -> None:
    version, folder, packages = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    if (folder / "torch").exists():
        return
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    print(
        f"loading libtorch {version} into {folder} (0.5 to 0.9 GB to load, 1.5 to 2 GB on disk)",
        file=sys.stderr,
    )
    install(part, "--no-deps", f"torch=={version}", *packages)
    (metadata,) = part.glob("torch-*.dist-info/METADATA")
    if runtime := cuda_runtime(metadata.read_text()):
        install(part, *runtime)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


if __name__ == "__main__":
    main()
