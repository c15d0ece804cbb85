"""Fixtures: products that must exist, and models exported once for the whole session."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import installed
import models
from checkout import ROOT
from support import GRAPHPATCH, PROGRAMS, Saved, save

sys.path.insert(0, str(ROOT / "bindings" / "python"))  # names of packages are made by the Python package


def pytest_configure(config: pytest.Config) -> None:
    """Ends the session at once if a program is not built, instead of letting every test fail."""
    names = [
        "infer",
        "runner",
        "served",
        "steady",
        "endings",
        "flat",
        "packaged",
        "plugin.so",
        "late",
        "load",
        "gpt",
        "gpt_stripped",
        "gpt.so",
        "dynamics",
        "square_op.so",
        "sweep",
        "stress",
        "table",
        "grads",
        "layouts",
        "sets",
        "tuple",
        "c_session",
        "c_patches",
        "c_host",
        "c_alone",
        "cpp_alone",
        "cpp_modules",
        "cpp_functions",
        "cpp_transformer",
        "cpp_scopes",
        "card/card",
    ]
    missing = [str(p) for p in [GRAPHPATCH, *(PROGRAMS / name for name in names)] if not p.exists()]
    if missing and not config.option.collectonly:
        pytest.exit(f"not built: {', '.join(missing)}; run `make programs`", returncode=2)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Saved]:
    """exported(name, module, inputs, kind): saves a module, once per name and kind."""
    folder = tmp_path_factory.mktemp("models")
    done: dict[tuple[str, str], Saved] = {}

    def export(name: str, module: torch.nn.Module, inputs: tuple[Any, ...], kind: str = "scripted") -> Saved:
        if (name, kind) not in done:
            done[name, kind] = save(module, inputs, folder / f"{name}-{kind}", kind)
        return done[name, kind]

    return export


@pytest.fixture(scope="session")
def tuple_output(exported: Callable[..., Saved]) -> Callable[[str], Saved]:
    """TupleOutputModule (tests/helpers/models.py), by kind."""
    torch.manual_seed(0)
    module, inputs = models.TupleOutputModule(), (torch.randn(3, 2),)
    return lambda kind="scripted": exported("tuple_output", module, inputs, kind)


@pytest.fixture(scope="session")
def transformer(exported: Callable[..., Saved]) -> Callable[[str], Saved]:
    """The two-layer transformer, by kind; models.transformer() makes the same module and inputs again."""
    module, inputs = models.transformer()
    return lambda kind="scripted": exported("transformer", module, inputs, kind)


@pytest.fixture
def graph_file(tmp_path: Path) -> Path:
    return tmp_path / "graph.json"


@pytest.fixture(scope="session")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installed tree with the adapter, which was moved to another place after the installation."""
    folder = tmp_path_factory.mktemp("install")
    installed.make("install", f"PREFIX={folder / 'first'}")
    (folder / "first").rename(folder / "second")
    installed.take_adapter(folder / "second")
    return folder / "second"
