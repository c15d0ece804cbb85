"""The programs of `programs/`, compiled, and a model for those that run one."""

from pathlib import Path

import pytest

from compiling import HERE, MODEL_LIBRARY, SOURCES, compile_program


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
