"""The zoo: every node of forty architectures. Packages come from build/zoo, and torch from the test environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "build" / "zoo"), str(ROOT / "bindings" / "python")]
# Nothing is fetched: configurations are written here, weights are random.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TOKENIZERS_PARALLELISM="false")

import torch

from case import Case
from models import MODELS

# One thread, so that sums are always computed in the same order.
torch.set_num_threads(1)

COUNTS: dict[str, Case] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        chosen = os.environ.get("MODELS", "").split() or list(MODELS)
        unknown = [name for name in chosen if name not in MODELS]
        if unknown:
            raise pytest.UsageError(f"MODELS: the zoo has no {', '.join(unknown)}; it has {', '.join(MODELS)}")
        metafunc.parametrize("case", chosen, indirect=True, scope="module")


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    COUNTS[request.param] = made = Case(request.param, *MODELS[request.param]())
    yield made
    made.forget()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if COUNTS:  # in one process: with several, the counts are those of the others
        terminalreporter.section("nodes of the zoo")
    for name, case in COUNTS.items():
        terminalreporter.line(f"{name}: {case.counts()}")
