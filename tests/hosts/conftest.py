"""The programs of `programs/`, compiled, and a model for those that run one."""

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
MODEL_LIBRARY = HERE.parents[1] / "build/libmodel.so"
SOURCES = ["ends.c", "processes.c", "files.c", "threads.c", "signals.c", "memory.c", "loading.c", "language.cpp"]


def compile_program(source: Path, out: Path, *flags: str) -> Path:
    """A C or C++ program. What a case is about may be what a compiler warns of."""
    compiler = ["g++", "-std=c++17"] if source.suffix == ".cpp" else ["gcc", "-std=gnu11"]
    common = ["-D_GNU_SOURCE", "-O1", "-g", "-w"]
    subprocess.run([*compiler, *common, source, "-o", out, *flags, "-ldl", "-lm", "-pthread"], check=True)
    return out


def compile_with_model(source: Path, out: Path) -> Path:
    """A program that calls model.h's functions. libtorch is found by the library's own RUNPATH."""
    include = f"-I{HERE.parents[0] / 'programs/c/include'}"
    return compile_program(
        source, out, include, str(MODEL_LIBRARY), f"-Wl,-rpath,{MODEL_LIBRARY.parent}", "-Wl,--allow-shlib-undefined"
    )


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    for source in SOURCES:
        compile_program(HERE / "programs" / source, folder / source.partition(".")[0], "-rdynamic")
    compile_program(HERE / "programs/plugin.c", folder / "plugin.so", "-shared", "-fPIC")
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A scripted module in a file, and the library that runs it, as a program's environment names them."""
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4)).eval()
    file = tmp_path_factory.mktemp("model") / "model.pt"
    torch.jit.script(net).save(str(file))
    return {"HOST_MODEL": str(MODEL_LIBRARY), "HOST_MODEL_FILE": str(file)}
