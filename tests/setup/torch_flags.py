"""Writes a Makefile fragment with the compiler and linker flags of a libtorch: this interpreter's, or that in FOLDER/torch.

    python torch_flags.py OUT.mk [FOLDER]

Rewrites OUT.mk only when something changed, so that programs are rebuilt exactly when libtorch has changed.
"""

import importlib.util
import os
import sys
from pathlib import Path


def torch_folder() -> Path:
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"error: {sys.executable} has no torch; run `make venv`")
    return Path(spec.submodule_search_locations[0])


def version(torch: Path) -> str:
    scope: dict[str, object] = {}
    exec((torch / "version.py").read_text(), scope)
    return str(scope["__version__"])


def cxx11_abi(torch: Path) -> int:
    """Which C++ string ABI libc10 uses. Its symbols tell, as importing torch to ask takes seconds.

    The symbol must be one of c10's own: libstdc++ code that is linked into older wheels has symbols of both kinds.
    """
    return int(b"torchCheckFailEPKcS2_jRKNSt7__cxx11" in (torch / "lib" / "libc10.so").read_bytes())


def fragment(torch: Path) -> str:
    release = tuple(int(part) for part in version(torch).split("+")[0].split(".")[:2])
    standard = "c++20" if release >= (2, 12) else "c++17"  # newer headers need C++20, 2.4's take C++17
    # CUDA wheels keep the libraries that libtorch_cpu needs beside torch, not inside it.
    nvidia = sorted(torch.parent.glob("nvidia/cu[0-9]*/lib")) + sorted(torch.parent.glob("nvidia/cuda_*/lib"))
    folders = [torch / "lib", *nvidia]
    rpaths = " ".join(f"-Wl,-rpath,{folder}" for folder in folders)
    links = " ".join(f"-Wl,-rpath-link,{folder}" for folder in folders)
    abi = cxx11_abi(torch)
    return (
        f"# libtorch {version(torch)}, written by tests/setup/torch_flags.py\n"
        f"TORCH_FOLDER := {torch}\n"
        f"TORCH_CXX11_ABI := {abi}\n"
        f"TORCH_CXXFLAGS := -std={standard} -D_GLIBCXX_USE_CXX11_ABI={abi}"
        f" -isystem {torch}/include -isystem {torch}/include/torch/csrc/api/include\n"
        # DT_RPATH, not RUNPATH: it also serves the libraries that libtorch itself needs. libtorch_cuda is left out on
        # purpose: these programs compute on the CPU, and loading the CUDA libraries takes longer than they run.
        f"TORCH_LDFLAGS := -L{torch}/lib -Wl,--disable-new-dtags {rpaths} {links} -ltorch_cpu -lc10 -pthread\n"
    )


def main() -> None:
    out = Path(sys.argv[1])
    text = fragment(Path(sys.argv[2]).resolve() / "torch" if len(sys.argv) > 2 else torch_folder())
    if not out.exists() or out.read_text() != text:
        out.parent.mkdir(parents=True, exist_ok=True)
        # Written beside it and renamed, because another make may be reading the file now.
        part = out.with_name(f"{out.name}.{os.getpid()}.part")
        part.write_text(text)
        part.replace(out)


if __name__ == "__main__":
    main()
