"""One model in several forms. `MODELS='GPT LSTM'` and `FORMS='compiled exported'` choose some; `COMPILER=aot_eager` has
torch.compile make no code, which is faster."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

import setting  # noqa: F401, sets the paths of imports
from architectures import MODELS
from forms import FORMS, Model


def _chosen(variable: str, known: list[str]) -> list[str]:
    chosen = os.environ.get(variable, "").split() or known
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise pytest.UsageError(f"{variable}: there is no {', '.join(unknown)}; there are {', '.join(known)}")
    return chosen


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "model" in metafunc.fixturenames:
        metafunc.parametrize("model", _chosen("MODELS", list(MODELS)), indirect=True, scope="module")
    if "form" in metafunc.fixturenames:
        metafunc.parametrize("form", _chosen("FORMS", list(FORMS)))


@pytest.fixture(scope="module")
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    with torch.no_grad():
        yield Model(request.param)
