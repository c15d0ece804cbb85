"""Models whose values lie on two ranks, as DTensors, as plain parts of such, and as parameters that FSDP gathers. A patch
means the whole value: both ranks give what the model gives that lies in one process.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).parent / "helpers" / "ranks.py"
Results = list[dict[str, Any]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("ranks")
    ranks = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(rank), str(folder / "store"), str(folder / f"{rank}.json")],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in ranks:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def check(results: Results, start: str, least: int) -> None:
    """Checks the cases whose names begin so: differences, or facts that hold."""
    for rank, found in enumerate(results):
        cases = {name: value for name, value in found.items() if name.startswith(start)}
        assert len(cases) >= least, cases
        wrong = {
            name: value for name, value in cases.items() if value is not True and not (0 <= as_number(value) <= 1e-4)
        }
        assert not wrong, (rank, wrong)


def as_number(value: Any) -> float:
    return value if isinstance(value, float) else float("inf")


def test_distributed_tensors(results: Results) -> None:
    check(results, "dtensor:", 12 * 22)


def test_plain_parts(results: Results) -> None:
    """What ``to_local`` gives away, and what is computed from it element by element."""
    check(results, "local", 12 * 22)


def test_probes_say_what_they_hold(results: Results) -> None:
    check(results, "probe:", 8)


def test_gradients_reach_the_value_of_a_patch(results: Results) -> None:
    check(results, "gradient:", 3)


def test_parts_that_are_not_known_are_refused(results: Results) -> None:
    check(results, "manual:", 5)


def test_parameters_of_fsdp(results: Results) -> None:
    check(results, "fsdp:", 4 * 22)
