"""The C ABI from C, with and without libtorch, also under valgrind. The header must compile alone."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from support import PROGRAMS, ROOT, Result, Saved, graphpatch, run_process, tree_in

HEADER = ROOT / "include" / "graphpatch.h"
PROGRAMS_IN_C = ROOT / "tests/programs/c"


def all_well(result: Result) -> None:
    assert result.code == 0, result.stderr
    assert result.stdout.endswith("all as it must be\n")


@pytest.fixture(scope="session")
def graph(tuple_output: Callable[[str], Saved], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved graph of the TupleOutputModule."""
    file = tmp_path_factory.mktemp("graph") / "graph.json"
    tuple_output("scripted").run(graph=file).ok()
    return file


@pytest.mark.parametrize("kind", ["scripted", "traced"])
def test_session_from_c(tuple_output: Callable[[str], Saved], kind: str) -> None:
    all_well(run_process([PROGRAMS / "c_session", tuple_output(kind).model]))


def test_a_session_beside_the_commands(tuple_output: Callable[[str], Saved], tmp_path: Path) -> None:
    """Under `graphpatch run` the program's own session works as usual, and the command gets the runs that it leaves."""
    saved, kept = tuple_output("scripted"), tmp_path / "kept.safetensors"
    program = [PROGRAMS / "c_session", saved.model]
    result = graphpatch("run", "--tree", "--probe", "linear.output", "--save", kept, "--summary", "--", *program).ok()
    assert tree_in(result.stderr) == tree_in(saved.run().ok().stderr)
    assert (
        "graphpatch: the program has a session of its own: runs that it records or patches itself are not"
        in result.stderr
    )
    runs = int(re.search(r"graphpatch: (\d+) runs in 1 process", result.stderr)[1])
    assert runs > 0 and f"linear.output=probe ┆ {runs} " in result.stderr and list(load_file(kept)) == ["linear.output"]


@pytest.mark.parametrize("kind", ["scripted", "traced"])
def test_patches_from_c(tuple_output: Callable[[str], Saved], kind: str, tmp_path: Path) -> None:
    all_well(run_process([PROGRAMS / "c_patches", tuple_output(kind).model, tmp_path]))


def test_host_from_c(tmp_path: Path) -> None:
    all_well(run_process([PROGRAMS / "c_host", tmp_path]))


def test_without_libtorch(graph: Path, tmp_path: Path) -> None:
    all_well(run_process([PROGRAMS / "c_alone", graph, tmp_path]))


def test_objects_used_in_wrong_ways(graph: Path) -> None:
    """After their end, twice freed, as another type, made up, and by two threads at once."""
    all_well(run_process([PROGRAMS / "c_handles", graph]))


def calls(code: str) -> list[str]:
    """The calls of the C ABI in C code, outside of comments."""
    return re.findall(r"\b(gp_\w+)\(", re.sub(r"//.*|/\*(?s:.*?)\*/", "", code))


def test_every_call_is_used_from_c() -> None:
    declared = calls(HEADER.read_text(encoding="utf-8"))
    assert len(declared) == len(set(declared)) > 50
    used = {call for file in PROGRAMS_IN_C.glob("*.c") for call in calls(file.read_text(encoding="utf-8"))}
    assert set(declared) <= used, f"no program of tests/programs/c calls {sorted(set(declared) - used)}"
    assert used <= set(declared), f"the header does not know {sorted(used - set(declared))}"


def valgrind(*command: Any) -> None:
    """Runs a program under valgrind, which must find neither an error nor a leak."""
    assert shutil.which("valgrind"), (
        "valgrind is missing: install it (apt-get install valgrind), or its package elsewhere"
    )
    options = [
        "-q",
        "--error-exitcode=9",
        "--leak-check=full",
        "--errors-for-leak-kinds=definite",
        "--show-leak-kinds=definite",
        "--num-callers=40",
        f"--suppressions={ROOT / 'tests/helpers/valgrind.supp'}",
    ]
    all_well(run_process(["valgrind", *options, *command]))


def test_memory_without_libtorch(graph: Path, tmp_path: Path) -> None:
    valgrind(PROGRAMS / "c_alone", graph, tmp_path)
    valgrind(PROGRAMS / "c_handles", graph)


def test_memory_with_libtorch(tuple_output: Callable[[str], Saved], tmp_path: Path) -> None:
    """Takes half a minute for each program. The adapter is built before, outside of valgrind."""
    graphpatch("doctor", "--build", "--", PROGRAMS / "runner").ok()
    valgrind(PROGRAMS / "c_patches", tuple_output("scripted").model, tmp_path)
    valgrind(PROGRAMS / "c_host", tmp_path)


@pytest.mark.parametrize(
    "compiler, language, standard",
    [
        ("cc", "c", "c99"),
        ("cc", "c", "c11"),
        ("cc", "c", "c17"),
        ("c++", "c++", "c++17"),
        ("c++", "c++", "c++20"),
    ],
)
def test_header_compiles_alone_and_twice(compiler: str, language: str, standard: str, tmp_path: Path) -> None:
    source = tmp_path / "twice.txt"
    source.write_text(
        f'#include "{HEADER}"\n#include "{HEADER}"\n'
        "int use(void);\nint use(void) { gp_leaf leaf = GP_LEAF_INIT; gp_patch_counts counts = GP_PATCH_COUNTS_INIT;\n"
        "  return gp_version() == 0 && leaf.changed && counts.failed == GRAPHPATCH_VERSION_NUMBER; }\n"
    )
    done = subprocess.run(
        [
            compiler,
            "-x",
            language,
            f"-std={standard}",
            "-Wall",
            "-Wextra",
            "-Wconversion",
            "-pedantic",
            "-Werror",
            "-fsyntax-only",
            source,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
