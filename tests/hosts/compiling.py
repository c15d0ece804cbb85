"""Compiles the programs of `programs/`."""

import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODEL_LIBRARY = HERE.parents[1] / "build/libmodel.so"
SOURCES = [
    "ends.c",
    "processes.c",
    "files.c",
    "threads.c",
    "signals.c",
    "memory.c",
    "loading.c",
    "rights.c",
    "services.c",
    "language.cpp",
]


def compile_program(source: Path, out: Path, *flags: str) -> Path:
    """Compiles a C or C++ program. Warnings are off, because some cases do on purpose what a compiler warns of."""
    compiler = ["g++", "-std=c++17"] if source.suffix == ".cpp" else ["gcc", "-std=gnu11"]
    common = ["-D_GNU_SOURCE", "-O1", "-g", "-w"]
    subprocess.run([*compiler, *common, source, "-o", out, *flags, "-ldl", "-lm", "-pthread"], check=True)
    return out


def compile_with_model(source: Path, out: Path, *flags: str) -> Path:
    """Compiles a program that calls model.h's functions. Their library finds libtorch by its own RUNPATH."""
    include = f"-I{HERE.parents[0] / 'programs/c/include'}"
    return compile_program(
        source,
        out,
        include,
        str(MODEL_LIBRARY),
        f"-Wl,-rpath,{MODEL_LIBRARY.parent}",
        "-Wl,--allow-shlib-undefined",
        *flags,
    )
