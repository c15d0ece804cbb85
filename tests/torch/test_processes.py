"""Programs without libtorch are not changed. Programs that end in unusual ways still write their report."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models import TUPLE_OUTPUT_TREE
from support import GRAPHPATCH, PROGRAMS, TIMEOUT, Saved, graphpatch, nodes, run_process, tree_in, trees_in

# --- programs without libtorch


def test_ls_is_untouched() -> None:
    bare = run_process(["/bin/ls", "-la", "/usr"]).ok()
    result = graphpatch("run", "--tree", "--", "/bin/ls", "-la", "/usr").ok()
    assert result.stdout == bare.stdout


def test_a_shell_pipeline_is_untouched() -> None:
    pipeline = "seq 1000 | sort -r | head -3; echo err >&2; exit 5"
    result = graphpatch("run", "--tree", "--", "/bin/sh", "-c", pipeline)
    assert result.stdout == "999\n998\n997\n" and result.code == 5
    assert "err" in result.stderr.splitlines()


def test_a_program_that_never_runs_a_model_still_reports_its_patches() -> None:
    result = graphpatch("run", "--patch", "add=zero", "--", "/bin/true")
    assert result.code == 3 and "add" in result.stderr


def test_child_processes_of_a_shell_are_instrumented(tuple_output: Callable[[str], Saved], tmp_path: Path) -> None:
    saved = tuple_output("scripted")
    command = f"'{PROGRAMS}/runner' '{saved.model}' '{saved.inputs}' '{tmp_path}/out.pt' && echo done"
    result = graphpatch("run", "--tree", "--", "/bin/sh", "-c", command).ok()
    assert result.stdout.endswith("done\n") and tree_in(result.stderr) == TUPLE_OUTPUT_TREE


# --- ways to end


def ending(saved: Saved, way: str, *options: object):
    return graphpatch("run", "--tree", *options, "--", PROGRAMS / "endings", *saved.args(), way)


@pytest.mark.parametrize("way", ["return", "exit", "_exit", "quick_exit", "thread"])
def test_the_report_comes_and_the_code_is_passed_on(tuple_output: Callable[[str], Saved], way: str) -> None:
    result = ending(tuple_output("scripted"), way)
    assert result.code == 7 and result.stdout == "ran\n"
    assert tree_in(result.stderr) == TUPLE_OUTPUT_TREE


@pytest.mark.parametrize(
    "way, number",
    [
        ("throw", signal.SIGABRT),
        ("terminate", signal.SIGABRT),
        ("abort", signal.SIGABRT),
        ("sigterm", signal.SIGTERM),
        ("sigint", signal.SIGINT),
    ],
)
def test_a_death_by_signal_looks_as_without_us(
    tuple_output: Callable[[str], Saved], way: str, number: signal.Signals
) -> None:
    saved = tuple_output("scripted")
    bare = run_process([PROGRAMS / "endings", *saved.args(), way])
    result = ending(saved, way)
    assert bare.code == -number
    # The program ends by the same signal, or with 128 + its number as shells report it.
    assert result.code in (-number, 128 + number) and result.stdout == bare.stdout
    assert tree_in(result.stderr) == TUPLE_OUTPUT_TREE
    if way == "throw":
        assert "nobody catches this" in result.stderr


def test_fork_and_exec(tuple_output: Callable[[str], Saved]) -> None:
    saved = tuple_output("scripted")
    forked = ending(saved, "fork")
    assert forked.code == 7 and forked.stdout == "ran\nran\n"
    assert all(tree == TUPLE_OUTPUT_TREE for tree in trees_in(forked.stderr)) and trees_in(forked.stderr)
    executed = ending(saved, "exec")
    assert executed.code == 7 and executed.stdout == "ran\nran\n"
    assert TUPLE_OUTPUT_TREE in trees_in(executed.stderr)


# --- late libtorch


def test_libtorch_that_a_plugin_brings(tuple_output: Callable[[str], Saved]) -> None:
    saved = tuple_output("scripted")
    # By path, and by bare name, which only the caller's own RUNPATH ($ORIGIN) finds.
    for plugin in (PROGRAMS / "plugin.so", "plugin.so"):
        bare = run_process([PROGRAMS / "late", plugin, *saved.args()]).ok()
        result = graphpatch("run", "--tree", "--", PROGRAMS / "late", plugin, *saved.args()).ok()
        assert result.stdout == bare.stdout and tree_in(result.stderr) == TUPLE_OUTPUT_TREE
    patched = graphpatch(
        "run", "--patch", "output|sub_0=zero", "--", PROGRAMS / "late", "plugin.so", *saved.args()
    ).ok()
    assert patched.stdout == "sum 0\n"


# --- the demo program


class TinyEncoder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(50, 4)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.embed(ids)) * mask.unsqueeze(2)


def test_infer_with_sentences_of_several_lengths(exported: Callable[..., Saved], tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved = exported("tiny_encoder", TinyEncoder(), (torch.ones(1, 3, dtype=torch.int64),) * 2)
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("1 2 3\n4 5 6 7\n8 9\n1 2 3 4 5\n")
    command = [PROGRAMS / "infer", saved.model, tokens, "--threads", 2, "--repeat", 3]
    bare = run_process(command).ok()
    result = run_process([GRAPHPATCH, "run", "--tree", "--", *command]).ok()
    assert result.stdout == bare.stdout
    kinds = dict(nodes(tree_in(result.stderr)))
    # A dimension that differed between runs is a range.
    assert kinds["tanh"] == "Tensor(1, 2..5, 4)" and kinds["embed.weight"] == "Tensor(50, 4)"


# --- doctor


def test_doctor_names_libtorch_and_adapter() -> None:
    result = graphpatch("doctor", "--", PROGRAMS / "infer").ok()
    assert "libtorch" in result.stdout and "adapter" in result.stdout.lower()


def test_no_compiler_is_said_clearly(tuple_output: Callable[[str], Saved], tmp_path: Path) -> None:
    """An empty cache and no compiler: the program still runs, and the message says what is missing."""
    saved = tuple_output("scripted")
    tools = tmp_path / "bin"
    tools.mkdir()
    environment = {
        **os.environ,
        "PATH": str(tools),
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    for name in ["CXX", "GRAPHPATCH_CACHE", "GRAPHPATCH_ADAPTER_DIR"]:
        environment.pop(name, None)
    for wish, code in (["--tree"], 0), (["--patch", "add=zero"], 3):
        done = subprocess.run(
            [GRAPHPATCH, "run", *wish, "--", PROGRAMS / "runner", *saved.args(), tmp_path / "out.pt"],
            capture_output=True,
            text=True,
            env=environment,
            timeout=TIMEOUT,
        )
        assert done.returncode == code and "compiler" in done.stderr and "panicked" not in done.stderr
        assert done.stdout == "1 run(s) in 1 thread(s)\n"
