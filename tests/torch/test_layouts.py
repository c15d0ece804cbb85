"""Patches on values that are not plain strided memory (tests/programs/cpp/layouts.cpp): each does exactly what PyTorch's own
expression does, or is refused with an error that names path, shape and reason."""

from functools import cache
from typing import NamedTuple

import pytest

from support import PROGRAMS, run_process

PATCHES = [
    "zero",
    "[0]=zero",
    "[..., 1:]=zero",
    "add:1",
    "[0]=add:1",
    "replace:0.25",
    "add:tensor",
    "replace:tensor",
    "probe",
    "record",
    "flip",
]
KEEPING = ["probe", "record"]
WRITING = [patch for patch in PATCHES if patch not in KEEPING]

# By value, the patches with another outcome than "same": "refused" by both, "careful" (refused by us alone), "bold"
# (refused by PyTorch alone), "by version" (the same or refused by both: versions of PyTorch after 2.11 can do it).
SPARSE = {"refused": WRITING, "careful": KEEPING}
WHOLE_NUMBER = ["zero", "replace:0.25"]
COMPRESSED = {
    "refused": [patch for patch in WRITING if patch not in WHOLE_NUMBER],
    "by version": WHOLE_NUMBER,
    "careful": KEEPING,
}
QUANTIZED = {
    "refused": ["[..., 1:]=zero", "add:1", "[0]=add:1", "add:tensor", "replace:tensor"],
    "careful": [*KEEPING, "flip"],
}
NO_SUM = {"refused": ["add:1", "[0]=add:1", "add:tensor"]}
DECIDED: dict[str, dict[str, list[str]]] = {
    **dict.fromkeys(["sparse-coo", "mkldnn", "sparse-in-place", "sparse-result"], SPARSE),
    **dict.fromkeys(["sparse-csr", "sparse-csc", "sparse-bsr"], COMPRESSED),
    **dict.fromkeys(["quantized", "quantized-int32", "quantized-in-place", "quantized-result"], QUANTIZED),
    "quantized-channels": {"refused": [*QUANTIZED["refused"], "flip"], "careful": KEEPING},
    # In a nested tensor, only a single inner tensor can be selected, and changed through that view.
    "nested": {"refused": [patch for patch in WRITING if patch != "[0]=add:1"], "careful": KEEPING},
    # A meta tensor has no numbers to keep. A patch's tensor is moved to the value's device, so that adding it works.
    "meta": {"refused": ["flip"], "careful": KEEPING, "bold": ["add:tensor"]},
    **{
        name: {}
        for name in [
            "conj",
            "conj-imag",
            "neg",
            "neg-of-fresh",
            "complex64",
            "complex128",
            "complex32",
            "expanded",
            "expanded-zero-dim",
            "overlapping",
            "foreign-memory",
            "storage-shared-later",
            "zero-size-inner",
        ]
    },
    **dict.fromkeys(
        ["bool", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "uint16", "uint32", "uint64"],
        NO_SUM,
    ),
    "zero-size": {"refused": ["[0]=zero", "[0]=add:1"]},
    **{
        name: {"refused": ["[0]=zero", "[..., 1:]=zero", "[0]=add:1", "add:tensor"]}
        for name in ["zero-dim", "zero-dim-shared"]
    },
}


class Line(NamedTuple):
    shape: str
    outcome: str
    message: str


@cache
def lines() -> dict[str, dict[str, Line]]:
    result = run_process([PROGRAMS / "layouts"])
    found: dict[str, dict[str, Line]] = {}
    for line in result.stdout.splitlines():
        name, shape, patch, outcome, message = line.split("\t")
        found.setdefault(name, {})[patch] = Line(shape, outcome, message)
    assert result.code == 0, f"exit code {result.code} after {list(found)[-1:]}\n{result.stderr}"
    return found


def test_no_value_is_left_out() -> None:
    assert set(lines()) == set(DECIDED)
    assert all(list(patches) == PATCHES for patches in lines().values())


@pytest.mark.parametrize("name", DECIDED)
def test_value(name: str) -> None:
    decided = {patch: outcome for outcome, patches in DECIDED[name].items() for patch in patches}
    wrong = []
    for patch in PATCHES:
        line = lines()[name][patch]
        want = decided.get(patch, "same")
        if line.outcome not in (["same", "refused"] if want == "by version" else [want]):
            wrong.append(f"{patch}: {line.outcome}, expected {want}: {line.message}")
        elif line.outcome in ("refused", "careful"):
            before, _, reason = line.message.partition(" cannot be applied at ")
            where, _, reason = reason.partition(": ")
            if not (where and where in before and len(reason) > 20):
                wrong.append(f"{patch}: an error without path or reason: {line.message}")
            # A nested tensor has no single shape, so the error must not name one.
            if (
                (f"shape {line.shape}" in line.message) != (line.shape != "-")
                or "shape ()" in line.message
                and line.shape != "()"
            ):
                wrong.append(f"{patch}: an error with another shape than {line.shape}: {line.message}")
    assert not wrong, "\n".join(wrong)
