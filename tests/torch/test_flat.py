"""C++ programs without runs and scopes: operations are listed flat, or below the module whose parameters they read.

So it is where calls of modules are not told of: see `test_modules.py`.
"""

import functools
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from models import TUPLE_OUTPUT_TREE
from support import (
    ENVIRONMENT,
    GRAPHPATCH,
    PROGRAMS,
    TIMEOUT,
    Result,
    Saved,
    graphpatch,
    nodes,
    run_process,
    same_bits,
    tree_in,
    trees_in,
    wait_until,
)

FLAT = PROGRAMS / "flat"
At = Callable[[str, torch.Tensor], torch.Tensor]


@dataclass
class Ended:
    process: Result
    weights: dict[str, torch.Tensor]
    input: torch.Tensor
    outputs: list[torch.Tensor]


@pytest.fixture(scope="module", autouse=True)
def without_calls_of_modules() -> Iterator[None]:
    ENVIRONMENT["GRAPHPATCH_CPP_MODULES"] = "0"
    yield
    del ENVIRONMENT["GRAPHPATCH_CPP_MODULES"]


def read(out: Path, process: Result) -> Ended:
    weights, value, outputs = torch.load(out, weights_only=False)
    return Ended(process, dict(weights), value, list(outputs))


@functools.cache
def bare(folder: Path, mode: str, n: int = 1) -> Ended:
    out = folder / f"{mode}-{n}.pt"
    return read(out, run_process([FLAT, mode, out, n]).ok())


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the program's results without graphpatch, which are made only once."""
    return tmp_path_factory.mktemp("bare")


def run(tmp_path: Path, mode: str, n: int = 1, *options: Any, patches: Sequence[str] = ()) -> Ended:
    out = tmp_path / "out.pt"
    asked = [word for patch in patches for word in ("--patch", patch)]
    return read(out, graphpatch("run", *options, *asked, "--", FLAT, mode, out, n).ok())


def nothing(_: str, value: torch.Tensor) -> torch.Tensor:
    return value


def plain(w: dict[str, torch.Tensor], x: torch.Tensor, at: At = nothing, forward: int = 0) -> torch.Tensor:
    """The program's plain forward; `at` sees every value under its path."""
    name = lambda base, n: f"{base}_{n}" if n else base
    hidden = at(name("addmm", 2 * forward), torch.addmm(w["b1"], x, w["w1"]))
    hidden = at(name("relu", forward), torch.relu(hidden))
    return at(name("addmm", 2 * forward + 1), torch.addmm(w["b2"], hidden, w["w2"]))


def net(w: dict[str, torch.Tensor], ids: torch.Tensor, at: At = nothing) -> torch.Tensor:
    """The program's torch::nn model in its first forward, operation by operation as the C++ modules call them."""

    def linear(scope: str, module: str, x: torch.Tensor) -> torch.Tensor:
        t = at(f"{scope}.t", at(f"{scope}.weight", w[f"{module}.weight"]).t())
        return at(f"{scope}.addmm", torch.addmm(at(f"{scope}.bias", w[f"{module}.bias"]), x, t))

    x = at("embed.embedding", F.embedding(ids, at("embed.weight", w["embed.weight"])))
    for i, number in enumerate(["", "_1"]):
        s, m = f"blocks_{i}", f"blocks.{i}"
        h = at(f"tanh{number}", torch.tanh(linear(f"{s}_fc", f"{m}.fc", x)))
        h = at(f"{s}.mul", h * at(f"{s}.scale", w[f"{m}.scale"]))
        weight, bias = at(f"{s}_norm.weight", w[f"{m}.norm.weight"]), at(f"{s}_norm.bias", w[f"{m}.norm.bias"])
        h = at(f"{s}_norm.layer_norm", F.layer_norm(h, (4,), weight, bias))
        x = at(f"add{number}", h + x)
    return at("softmax", torch.softmax(linear("head", "head", x), 1))


def patched(path: str, change: Callable[[torch.Tensor], Any]) -> At:
    def at(here: str, value: torch.Tensor) -> torch.Tensor:
        if here != path:
            return value
        value = value.clone()
        change(value)
        return value

    return at


CHANGES: dict[str, Callable[[torch.Tensor], Any]] = {
    "=zero": lambda v: v.zero_(),
    "[0]=zero": lambda v: v[0].zero_(),
    "[..., 1]=add:0.5": lambda v: v[..., 1].add_(0.5),
    "=replace:2": lambda v: v.fill_(2),
}

MODULE_SCOPES = {"embed": 2, "blocks_0_fc": 4, "blocks_0": 2, "blocks_0_norm": 3, "head": 4}

# --- what is seen


def test_plain_operations_are_listed_in_order(tmp_path: Path) -> None:
    ended = run(tmp_path, "ops", 2, "--tree", "--run-at", "addmm")
    assert tree_in(ended.process.stderr) == "<root>: Graph(2)\n├─addmm: Tensor(2, 3..5)\n└─relu: Tensor(2, 5)\n"
    ended = run(tmp_path, "ops", 2, "--tree")
    names = [name for name, _ in nodes(tree_in(ended.process.stderr))]
    assert names == [
        "randn",
        "randn_1",
        "randn_2",
        "randn_3",
        "randn_4",
        "addmm",
        "relu",
        "addmm_1",
        "addmm_2",
        "relu_1",
        "addmm_3",
    ]


@pytest.mark.parametrize("mode, n", [("ops", 3), ("nn", 2), ("load", 1), ("train", 3), ("threads", 4), ("twice", 1)])
def test_nothing_changes_while_only_looked_at(tmp_path: Path, folder: Path, mode: str, n: int) -> None:
    before, after = bare(folder, mode, n), run(tmp_path, mode, n, "--tree", "--summary")
    assert before.process.stdout == after.process.stdout and "no libtorch model" not in after.process.stderr
    assert same_bits(before.weights, after.weights) and same_bits(before.outputs, after.outputs)


def test_operations_on_parameters_stand_in_their_modules_scope(tmp_path: Path) -> None:
    graph = tmp_path / "g.json"
    ended = run(tmp_path, "nn", 1, "--tree", "--graph", graph)
    kinds = dict(nodes(tree_in(ended.process.stderr)))
    assert all(kinds[scope] == f"Graph({n})" for scope, n in MODULE_SCOPES.items()), kinds
    for path, parameter in ended.weights.items():
        scope, name = path.replace(".", "_").rsplit("_", 1)
        assert kinds[f"{scope}.{name}"] == f"Tensor({', '.join(map(str, parameter.shape))})"
    seen: dict[str, str] = {}
    net(ended.weights, ended.input, lambda path, value: seen.setdefault(path, str(tuple(value.shape))) and value)
    for path, shape in seen.items():
        assert kinds[path] == "Tensor" + shape.replace(",)", ")"), path
    saved = json.loads(graph.read_text())["graphs"][0]["root"]
    scope = next(node for node in saved["children"] if node["name"] == "blocks_0_fc")
    addmm = next(node for node in scope["children"] if node["name"] == "addmm")
    assert addmm["args"] == [{"node": "bias"}, {"outer": "embed.embedding"}, {"node": "t"}]


def test_loading_weights_is_no_operation(tmp_path: Path) -> None:
    made = run(tmp_path, "nn", 1, "--tree").process
    loaded = run(tmp_path, "load", 1, "--tree").process
    count = lambda process: sum(
        name.split("_")[0] not in {"empty", "normal", "uniform", "fill", "zero", "full"}
        for name, _ in nodes(tree_in(process.stderr))
    )
    assert count(made) == count(loaded)


def test_two_models_have_scopes_of_their_own(tmp_path: Path, folder: Path) -> None:
    ended = run(tmp_path, "twice", 1, "--tree", patches=["head_1.addmm=zero"])
    kinds = dict(nodes(tree_in(ended.process.stderr)))
    assert kinds["head"] == kinds["head_1"] and kinds["embed.embedding"] == kinds["embed_1.embedding"]
    before = bare(folder, "twice")
    assert same_bits(ended.outputs[0], before.outputs[0])
    assert torch.equal(ended.outputs[1], torch.full((3, 3), 1 / 3))


# --- patches


@pytest.mark.parametrize(
    "path, forward, change",
    [
        ("addmm", 0, "=zero"),
        ("relu", 0, "[0]=zero"),
        ("addmm_1", 0, "[..., 1]=add:0.5"),
        ("relu_1", 1, "=replace:2"),
        ("addmm_3", 1, "=zero"),
    ],
)
def test_patches_on_plain_operations(tmp_path: Path, folder: Path, path: str, forward: int, change: str) -> None:
    before = bare(folder, "ops", 3)
    for tree in [], ["--tree"]:
        after = run(tmp_path, "ops", 3, *tree, patches=[path + change])
        for i in range(3):
            expected = plain(before.weights, before.input, patched(path, CHANGES[change]), i)
            assert same_bits(after.outputs[i], expected), i
        assert not same_bits(after.outputs[forward], before.outputs[forward])


@pytest.mark.parametrize(
    "path, change",
    [
        ("embed.embedding", "[..., 1]=add:0.5"),
        ("embed.weight", "=zero"),
        ("blocks_0_fc.weight", "[0]=zero"),
        ("blocks_0_fc.bias", "=replace:2"),
        ("blocks_0_fc.t", "[..., 1]=add:0.5"),
        ("blocks_1_fc.addmm", "[0]=zero"),
        ("tanh_1", "=zero"),
        ("blocks_0.scale", "[..., 1]=add:0.5"),
        ("blocks_1.mul", "=replace:2"),
        ("blocks_1_norm.weight", "=zero"),
        ("blocks_0_norm.layer_norm", "[..., 1]=add:0.5"),
        ("add", "[0]=zero"),
        ("head.weight", "[0]=zero"),
        ("softmax", "=replace:2"),
    ],
)
def test_patches_on_module_paths(tmp_path: Path, folder: Path, path: str, change: str) -> None:
    before = bare(folder, "nn")
    assert same_bits(before.outputs[0], net(before.weights, before.input))
    expected = net(before.weights, before.input, patched(path, CHANGES[change]))
    recorded = ["--tree"] if len(path) % 2 else []
    after = run(tmp_path, "nn", 1, *recorded, patches=[path + change])
    assert torch.allclose(after.outputs[0], expected, atol=1e-6) and not same_bits(after.outputs, before.outputs)
    assert same_bits(after.weights, before.weights), "the module's own weights stay as they are"


def test_a_parameter_is_patched_at_every_operation_of_a_long_run(tmp_path: Path, folder: Path) -> None:
    """Its copy follows what the optimizer writes, and the optimizer's writes are not lost in a copy."""
    before, after = (
        bare(folder, "train", 4),
        run(tmp_path, "train", 4, patches=["head.weight[0]=zero", "blocks_0_fc.bias=zero"]),
    )
    assert not same_bits(before.outputs, after.outputs)

    def reference(at: At) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        start = bare(folder, "nn")  # the same seed: the weights before any step
        w = {name: value.clone().requires_grad_() for name, value in start.weights.items()}
        optimizer = torch.optim.SGD(list(w.values()), lr=0.1, foreach=False)
        losses = []
        for _ in range(4):
            optimizer.zero_grad()
            loss = F.nll_loss(torch.log(net(w, start.input, at)), torch.tensor([0, 1, 2]))
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return losses, {name: value.detach() for name, value in w.items()}

    def at(path: str, value: torch.Tensor) -> torch.Tensor:
        return patched("blocks_0_fc.bias", lambda v: v.zero_())(
            path, patched("head.weight", lambda v: v[0].zero_())(path, value)
        )

    for ended, change in [(before, nothing), (after, at)]:
        losses, weights = reference(change)
        assert torch.allclose(torch.stack(losses), torch.stack(ended.outputs), atol=1e-6)
        for name, value in weights.items():
            assert torch.allclose(value, ended.weights[name], atol=1e-6), name


def test_patches_reach_every_thread(tmp_path: Path, folder: Path) -> None:
    before, after = bare(folder, "threads", 4), run(tmp_path, "threads", 4, "--summary", patches=["relu=zero"])
    expected = plain(before.weights, before.input, patched("relu", lambda v: v.zero_()))
    assert len(after.outputs) == 4 and all(same_bits(output, expected) for output in after.outputs)
    # Five threads with operations, one of them cancelled, and main, which makes the tensors.
    assert re.search(r"relu=zero\s*┆ 5\s*┆ 5 ", after.process.stderr) and "6 runs in 1 process" in after.process.stderr


REGION = "operations that the program calls inside of a parallel region (at::parallel_for) are not seen"
TASK = "operations in tasks on libtorch's own threads (at::launch, jit::fork) are not seen"
# The ways of tests/programs/cpp/regions.cpp to call something four times at once, and what is said of each.
WAYS = {"for": REGION, "omp": REGION, "launch": TASK, "intraop": None, "async": None}
ONES = torch.ones(2, 3)


def in_regions(
    tmp_path: Path, way: str, what: str, patch: str, *more: Any
) -> tuple[Result, dict[str, torch.Tensor], list]:
    """Runs the program. Also returns its model's weights, and five results: four that were computed at once, and one."""
    scripted, out = tmp_path / "scripted.pt", tmp_path / "out.pt"
    if what == "script":
        torch.jit.script(nn.Sequential(nn.Linear(3, 3), nn.ReLU()).eval()).save(scripted)
    command = [GRAPHPATCH, "run", "--operations", "always", "--patch", patch]
    done = run_process([*command, "--", PROGRAMS / "regions", way, what, scripted, out, *more]).ok()
    weights, results = torch.load(out, weights_only=False)
    return done, dict(weights), list(results)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("more", [[], ["after"]], ids=["at first", "after another operation"])
def test_operations_that_the_program_calls_at_once_are_patched_or_told(
    tmp_path: Path, way: str, more: list[str]
) -> None:
    done, _, results = in_regions(tmp_path, way, "ops", "relu=zero", *more)
    told = [note for note in (REGION, TASK) if note in done.stderr]
    assert told == ([WAYS[way]] if WAYS[way] else [])
    patched = [not result.any() for result in results]
    assert all(same_bits(result, ONES) for result, zero in zip(results, patched, strict=True) if not zero)
    # The first call of each thread is patched: the main thread makes all that `intraop` calls.
    expected = {"intraop": [True, False, False, False, False], "async": [True] * 5}
    assert patched == expected.get(way, [False, False, False, False, True])


@pytest.mark.parametrize("way", WAYS)
def test_modules_that_the_program_calls_at_once_are_patched_or_told(tmp_path: Path, way: str) -> None:
    done, weights, results = in_regions(tmp_path, way, "nn", "bias=add:100")
    told = [note for note in (REGION, TASK) if note in done.stderr]
    assert told == ([WAYS[way]] if WAYS[way] else [])
    bare = F.linear(ONES, weights["weight"], weights["bias"])
    patched = F.linear(ONES, weights["weight"], weights["bias"] + 100)
    seen = [same_bits(result, patched) for result in results]
    assert all(same_bits(result, bare) for result, is_seen in zip(results, seen, strict=True) if not is_seen)
    assert seen == [WAYS[way] is None] * 4 + [True]


@pytest.mark.parametrize("way", [*WAYS, "helpers"])
def test_torchscript_that_the_program_calls_at_once_is_patched(tmp_path: Path, way: str) -> None:
    done, _, results = in_regions(tmp_path, way, "script", "sub_1.output=replace:7")
    assert all(torch.equal(result, torch.full((2, 3), 7.0)) for result in results), (done.stderr, results)


def test_probes_and_checks(tmp_path: Path) -> None:
    graph, kept = tmp_path / "g.json", tmp_path / "k.safetensors"
    before = run(tmp_path, "nn", 2, "--graph", graph, "--run-at", "embedding")
    seen: dict[str, torch.Tensor] = {}
    net(before.weights, before.input, lambda path, value: seen.setdefault(path, value))
    run(
        tmp_path,
        "nn",
        2,
        "--against",
        graph,
        "--run-at",
        "embedding",
        "--probe",
        "head.addmm",
        "--record",
        "blocks_0.scale",
        "--save",
        kept,
    )
    values = load_file(kept)
    assert same_bits(values["head.addmm"], seen["head.addmm"])
    assert sorted(values) == ["blocks_0.scale#0", "blocks_0.scale#1", "head.addmm"]
    assert all(same_bits(values[f"blocks_0.scale#{i}"], seen["blocks_0.scale"]) for i in range(2))
    wrong = graphpatch("run", "--against", graph, "--patch", "head.addm=zero", "--", FLAT, "nn", tmp_path / "x.pt")
    assert wrong.code == 2 and "head.addmm" in wrong.stderr
    missed = graphpatch("run", "--patch", "head.addm=zero", "--", FLAT, "nn", tmp_path / "x.pt")
    assert missed.code == 3 and "head.addmm" in missed.stderr


# --- runs


def test_a_named_operation_begins_runs(tmp_path: Path, folder: Path) -> None:
    patches = tmp_path / "p.toml"
    patches.write_text('[[patch]]\npath = "head.addmm"\nkind = "zero"\nruns = "1"\n')
    before = bare(folder, "nn", 3)
    for name in ["embedding", "embed.embedding"]:
        after = run(tmp_path, "nn", 3, "--tree", "--summary", "--run-at", name, "--patches", patches)
        assert "3 runs in 1 process" in after.process.stderr
        assert nodes(tree_in(after.process.stderr))[0][0] == "embed", "what came before is in no run"
        assert same_bits(after.outputs[0], before.outputs[0]) and same_bits(after.outputs[2], before.outputs[2])
        assert torch.equal(after.outputs[1], torch.full((3, 3), 1 / 3))


def test_names_that_begin_no_run_are_told(tmp_path: Path) -> None:
    out = tmp_path / "out.pt"
    for name in ["embed", "head.embedding"]:
        result = graphpatch("run", "--tree", "--run-at", name, "--", FLAT, "nn", out).ok()
        assert f"--run-at {name}: there was no such call" in result.stderr
    for name in ["", "a b", "a..b"]:
        assert graphpatch("run", "--run-at", name, "--", FLAT, "nn", out).code == 2
    assert graphpatch("run", "--run-at", "embedding", "--operations", "never", "--", FLAT, "nn", out).code == 2
    silent = graphpatch("run", "--tree", "--operations", "never", "--", FLAT, "nn", out).ok()
    assert "--operations always" in silent.stderr


def looping(folder: Path, n: int, *asked: str) -> subprocess.Popen:
    """The program without end under `graphpatch run`; it prints a line after its first forward and after every n more."""
    command = [GRAPHPATCH, "run", *asked, "--", FLAT, "loop", folder / "out.pt", n]
    return subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, "TMPDIR": str(folder)},
    )


def forwards(process: subprocess.Popen, lines: int) -> None:
    assert process.stdout and [process.stdout.readline() for _ in range(lines)] == ["ready\n"] * lines


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def resident(pid: int) -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])  # type: ignore[index]


@pytest.mark.parametrize("asked", [["--tree"], ["--patch", "addmm_7=zero", "--tree"]], ids=["recorded", "patched"])
def test_a_run_without_end_stays_small_and_is_reported(tmp_path: Path, asked: list[str]) -> None:
    process = looping(tmp_path, 100_000, *asked)
    forwards(process, 2)  # waits for the first forward and then for a hundred thousand more
    (program,) = children(process.pid)
    # If names of nodes were kept for ever, every hundred thousand forwards would take tens of megabytes. Writing a report takes
    # some as well, once, at a moment that depends on how fast the machine is.
    grown: list[int] = []
    while len(grown) < 4 and (not grown or grown[-1] >= 6000):
        before = resident(program)
        forwards(process, 1)
        grown.append(resident(program) - before)
    os.kill(program, signal.SIGKILL)
    _, told = process.communicate(timeout=TIMEOUT)
    assert grown[-1] < 6000, f"{grown} kB more"
    assert "recorded up to its 20000th node" in told and "--run-at" in told
    tree = nodes(tree_in(told))
    assert len(tree) == 20000 and tree[5][0] == "addmm" and "never matched" not in told


def test_a_short_run_without_end_is_reported_when_killed(tmp_path: Path) -> None:
    process = looping(tmp_path, 100, "--tree")
    forwards(process, 2)
    # SIGKILL leaves no time to write a report, so wait until one with the operation exists.
    wait_until(
        lambda: any(b"addmm_1" in file.read_bytes() for file in tmp_path.glob("**/report-*.json")),
        "a report of the open run",
    )
    os.kill(children(process.pid)[0], signal.SIGKILL)
    _, told = process.communicate(timeout=TIMEOUT)
    assert ("addmm_1", "Tensor(2, 3)") in nodes(tree_in(told))


# --- processes


@pytest.mark.parametrize("way", ["return", "exit", "_exit", "quick_exit", "abort"])
def test_the_run_that_is_open_at_the_end_is_told(tmp_path: Path, way: str) -> None:
    result = graphpatch("run", "--tree", "--", FLAT, way, tmp_path / "out.pt")
    assert result.code == (128 + signal.SIGABRT if way == "abort" else 7)
    assert nodes(tree_in(result.stderr))[-1] == ("addmm_1", "Tensor(2, 3)")


def test_a_forked_child_begins_anew(tmp_path: Path, folder: Path) -> None:
    before, after = bare(folder, "fork"), run(tmp_path, "fork", 1, "--summary", patches=["addmm_1=zero"])
    child = read(tmp_path / "out.pt.child", after.process)
    zero = torch.zeros(2, 3)
    assert same_bits(after.outputs, [zero, before.outputs[1]]) and same_bits(child.outputs, [zero, zero])
    assert "2 runs in 2 processes" in after.process.stderr


def test_torchscript_programs_are_as_they_were(tuple_output: Callable[[str], Saved], tmp_path: Path) -> None:
    saved = tuple_output("scripted")
    plain_run = saved.bare().ok()
    assert saved.run().ok().tree == TUPLE_OUTPUT_TREE
    both = saved.run(extra=["--operations", "always"]).ok()
    assert same_bits(both.output, plain_run.output)
    assert TUPLE_OUTPUT_TREE in trees_in(both.stderr) and "# operations" in both.stderr
    at = saved.run(extra=["--run-at", "linear"]).ok()
    assert at.tree == TUPLE_OUTPUT_TREE and "--run-at: nothing begins there" in at.stderr


def test_python_is_never_flat(tmp_path: Path) -> None:
    script = tmp_path / "s.py"
    script.write_text("import torch\nm = torch.nn.Linear(2, 2)\nm(torch.ones(1, 2) + 1)\n")
    result = run_process([GRAPHPATCH, "run", "--tree", "--operations", "always", "--", os.sys.executable, script]).ok()
    assert "Linear" in result.stderr or len(trees_in(result.stderr)) == 1
    assert "add" not in dict(nodes(tree_in(result.stderr)))
