"""Module scopes of finished C++ programs: calls of libtorch's modules and of the program's own, without a rebuild."""

import functools
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from support import ENVIRONMENT, GRAPHPATCH, PROGRAMS, TIMEOUT, Result, nodes, run_process, same_bits, trees_in

ROOT_NAME = "GptImpl.forward"
At = Callable[[str, torch.Tensor], torch.Tensor]

if os.uname().machine != "x86_64":
    pytest.skip("calls of modules are seen on x86-64 alone", allow_module_level=True)


@dataclass
class Ended:
    process: Result
    weights: dict[str, torch.Tensor]
    input: torch.Tensor
    outputs: list[torch.Tensor]


def ended(out: Path, process: Result) -> Ended:
    weights, value, outputs = torch.load(out, weights_only=False)
    return Ended(process, dict(weights), value, list(outputs))


def command(program: str, mode: str, out: Path, n: int) -> list[Any]:
    if program.startswith("plugin"):
        binding = "deep" if program == "plugin-deep" else "plain"
        return [PROGRAMS / "load", PROGRAMS / "gpt.so", "gpt_main", binding, mode, out, n]
    return [PROGRAMS / program, mode, out, n]


@functools.cache
def bare(folder: Path, mode: str, n: int) -> Ended:
    out = folder / f"{mode}-{n}.pt"
    return ended(out, run_process(command("gpt", mode, out, n)).ok())


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the program's results without graphpatch, which are made only once."""
    return tmp_path_factory.mktemp("bare")


def run(
    tmp_path: Path,
    mode: str = "forward",
    n: int = 1,
    *options: Any,
    patches: Sequence[str] = (),
    program: str = "gpt",
    variables: dict[str, str] | None = None,
) -> Ended:
    out = tmp_path / "out.pt"
    asked = [word for patch in patches for word in ("--patch", patch)]
    line = [GRAPHPATCH, "run", *options, *asked, "--", *command(program, mode, out, n)]
    done = subprocess.run(
        [str(word) for word in line],
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, **(variables or {})},
        stdin=subprocess.DEVNULL,
        timeout=TIMEOUT,
    )
    return ended(out, Result(done.stdout, done.stderr, done.returncode).ok())


def tree_of(root: str, process: Result) -> str:
    _, heading, rest = process.stderr.partition(f"# {root}\n")
    assert heading, process.stderr
    return trees_in(rest)[0]


def gpt(w: dict[str, torch.Tensor], ids: torch.Tensor, at: At) -> torch.Tensor:
    """The program's model as its modules compute it. `at` sees each operation under the path that it has in eager Python."""
    counts: dict[str, int] = {}

    def op(scope: str, name: str, value: torch.Tensor) -> torch.Tensor:
        path = f"{scope}.{name}" if scope else name
        before = counts.get(path, 0)
        counts[path] = before + 1
        return at(f"{path}_{before}" if before else path, value)

    def linear(scope: str, module: str, x: torch.Tensor, bias: bool = True) -> torch.Tensor:
        t = op(scope, "t", w[f"{module}.weight"].t())
        x = op(scope, "matmul", torch.matmul(x, t))
        x = op(scope, "add_", x + w[f"{module}.bias"]) if bias else x
        return at(f"{scope}.output", x)

    def norm(scope: str, module: str, x: torch.Tensor) -> torch.Tensor:
        x = op(scope, "layer_norm", F.layer_norm(x, (16,), w[f"{module}.weight"], w[f"{module}.bias"]))
        return at(f"{scope}.output", x)

    def attention(scope: str, module: str, x: torch.Tensor) -> torch.Tensor:
        parts = linear(f"{scope}.qkv", f"{module}.qkv", x).chunk(3, -1)
        at(f"{scope}.chunk", x)
        view = lambda part: op(scope, "view", part.view(2, 6, 4, 4))
        transpose = lambda value, *axes: op(scope, "transpose", value.transpose(*axes))
        # A C++ compiler computes arguments from the last one to the first.
        keys = transpose(transpose(view(parts[1]), 1, 2), -1, -2)
        queries = transpose(view(parts[0]), 1, 2)
        scores = op(scope, "div", op(scope, "matmul", torch.matmul(queries, keys)) / 2)
        lower = op(scope, "tril", op(scope, "ones", torch.ones(6, 6, dtype=torch.bool)).tril())
        masked = op(scope, "masked_fill", scores.masked_fill(op(scope, "logical_not", lower.logical_not()), -torch.inf))
        weights = op(scope, "softmax", masked.softmax(-1))
        values = transpose(view(parts[2]), 1, 2)
        mixed = transpose(op(scope, "matmul", torch.matmul(weights, values)), 1, 2)
        x = linear(f"{scope}.proj", f"{module}.proj", op(scope, "reshape", mixed.reshape(2, 6, 16)))
        return at(f"{scope}.output", x)

    def dropped(scope: str, x: torch.Tensor) -> torch.Tensor:
        return at(f"{scope}.output", at(f"{scope}.dropout", x))

    def block(scope: str, module: str, x: torch.Tensor) -> torch.Tensor:
        inner = attention(f"{scope}.attn", f"{module}.attn", norm(f"{scope}.ln1", f"{module}.ln1", x))
        x = op(scope, "add", x + dropped(f"{scope}.drop", inner))
        hidden = linear(f"{scope}.mlp.up", f"{module}.mlp.up", norm(f"{scope}.ln2", f"{module}.ln2", x))
        hidden = op(f"{scope}.mlp", "gelu", F.gelu(hidden))
        inner = at(f"{scope}.mlp.output", linear(f"{scope}.mlp.down", f"{module}.mlp.down", hidden))
        x = op(scope, "add", x + dropped(f"{scope}.drop_1", inner))
        return at(f"{scope}.output", x)

    places = op("", "arange", torch.arange(6))
    wpe = at("wpe.output", op("wpe", "embedding", F.embedding(places, w["wpe.weight"])))
    wte = at("wte.output", op("wte", "embedding", F.embedding(ids, w["wte.weight"])))
    x = op("", "add", wte + wpe)
    for i in range(2):
        x = block(f"h_{i}", f"h.{i}", x)
    x = linear("head", "head", norm("ln", "ln", x), bias=False)
    return at("output", x)


def nothing(_: str, value: torch.Tensor) -> torch.Tensor:
    return value


def changed(path: str, change: Callable[[torch.Tensor], Any]) -> At:
    def at(here: str, value: torch.Tensor) -> torch.Tensor:
        if here != path:
            return value
        value = value.clone()
        change(value)
        return value

    return at


def expected_names(w: dict[str, torch.Tensor], ids: torch.Tensor) -> list[str]:
    seen: list[str] = []
    gpt(w, ids, lambda path, value: seen.append(path) or value)  # type: ignore[func-returns-value]
    return [path for path in seen if not path.endswith("output")]


def share_in_scope(process: Result, expected: Iterable[str]) -> float:
    """How many of the operations are where eager Python has them."""
    found = {name for name, _ in nodes(tree_of(ROOT_NAME, process))}
    paths = list(expected)
    return sum(path in found for path in paths) / len(paths)


CHANGES: dict[str, Callable[[torch.Tensor], Any]] = {
    "=zero": lambda v: v.zero_(),
    "[0]=zero": lambda v: v[0].zero_(),
    "[..., 1]=add:0.5": lambda v: v[..., 1].add_(0.5),
    "=replace:2": lambda v: v.fill_(2),
}

PROGRAM_FORMS = ["gpt", "gpt_stripped", "plugin", "plugin-deep"]

# --- what is seen


def test_the_reference_is_the_programs_model(folder: Path) -> None:
    before = bare(folder, "forward", 1)
    assert same_bits(before.outputs[0], gpt(before.weights, before.input, nothing))


@pytest.mark.parametrize(
    "program, least", [("gpt", 0.95), ("gpt_stripped", 0.45), ("plugin", 0.95), ("plugin-deep", 0.9)]
)
def test_operations_stand_in_the_scopes_of_eager_python(
    tmp_path: Path, folder: Path, program: str, least: float
) -> None:
    before, after = bare(folder, "forward", 3), run(tmp_path, "forward", 3, "--tree", program=program)
    assert same_bits(before.outputs, after.outputs) and before.process.stdout == after.process.stdout
    share = share_in_scope(after.process, expected_names(before.weights, before.input))
    assert share >= least, f"{share:.3f}\n{tree_of(ROOT_NAME, after.process)}"


def test_each_forward_is_a_run_with_the_same_names(tmp_path: Path) -> None:
    once = run(tmp_path, "forward", 1, "--tree").process
    thrice = run(tmp_path, "forward", 3, "--tree").process
    assert tree_of(ROOT_NAME, once) == tree_of(ROOT_NAME, thrice)
    stripped = run(tmp_path, "forward", 3, "--tree", program="gpt_stripped").process
    names = [name for name, _ in nodes(tree_of(ROOT_NAME, stripped))]
    assert "wpe.embedding" in names and "wpe.embedding_1" not in names and "wpe_1" not in names


@pytest.mark.parametrize("mode, n", [("throws", 2), ("threads", 4), ("recursive", 2), ("parts", 2)])
def test_nothing_changes_while_only_looked_at(tmp_path: Path, folder: Path, mode: str, n: int) -> None:
    before, after = bare(folder, mode, n), run(tmp_path, mode, n, "--tree", "--summary")
    assert before.process.stdout == after.process.stdout
    assert same_bits(before.outputs, after.outputs) and same_bits(before.weights, after.weights)


def test_a_module_that_calls_itself_is_a_scope_in_itself(tmp_path: Path) -> None:
    tree = tree_of("HolderImpl.forward", run(tmp_path, "recursive", 2, "--tree").process)
    names = [name for name, _ in nodes(tree) if name.endswith("addmm")]
    assert names == ["tree.fc.addmm", "tree.tree.fc.addmm", "tree.tree.tree.fc.addmm"]


def test_parts_of_a_model_that_are_called_alone_are_runs_of_the_model(tmp_path: Path) -> None:
    names = [name for name, _ in nodes(tree_of(ROOT_NAME, run(tmp_path, "parts", 3, "--tree").process))]
    assert {"wte.embedding", "h_0.attn.softmax", "h_1.attn.proj.matmul", "head.matmul"} <= set(names)
    assert not any("_1.embedding" in name or "h_2" in name for name in names)


@pytest.mark.parametrize(
    "off", [{"variables": {"GRAPHPATCH_CPP_MODULES": "0"}}, {"options": ["--run-at", "wte.embedding"]}]
)
def test_without_them_operations_are_listed_flat(tmp_path: Path, off: dict[str, Any]) -> None:
    after = run(tmp_path, "forward", 1, "--tree", *off.get("options", []), variables=off.get("variables"))
    names = [name for tree in trees_in(after.process.stderr) for name, _ in nodes(tree)]
    assert "# GptImpl" not in after.process.stderr
    assert "h_0_attn_qkv.add_" in names and "softmax" in names


# --- patches


@pytest.mark.parametrize(
    "path, change",
    [
        ("wte.embedding", "[..., 1]=add:0.5"),
        ("add", "[0]=zero"),
        ("h_0.attn.softmax", "=zero"),
        ("h_1.attn.qkv.add_", "[..., 1]=add:0.5"),
        ("h_0.attn.proj.output", "=replace:2"),
        ("h_0.attn.output", "[0]=zero"),
        ("h_1.mlp.up.output", "[..., 1]=add:0.5"),
        ("h_1.drop_1.output", "=zero"),
        ("h_0.output", "[..., 1]=add:0.5"),
        ("ln.output", "=replace:2"),
        ("output", "[0]=zero"),
    ],
)
def test_a_patch_holds_in_every_forward(tmp_path: Path, folder: Path, path: str, change: str) -> None:
    before = bare(folder, "forward", 3)
    expected = gpt(before.weights, before.input, changed(path, CHANGES[change]))
    recorded = ["--tree"] if len(path) % 2 else []
    after = run(tmp_path, "forward", 3, *recorded, patches=[path + change])
    assert not same_bits(expected, before.outputs[0])
    for output in after.outputs:
        assert torch.allclose(output, expected, atol=1e-5)
    assert same_bits(after.weights, before.weights)


@pytest.mark.parametrize("program", PROGRAM_FORMS)
def test_a_patch_on_a_parameter_holds_in_every_form(tmp_path: Path, folder: Path, program: str) -> None:
    before = bare(folder, "forward", 2)
    weights = {**before.weights, "h.0.attn.proj.weight": torch.zeros(16, 16)}
    expected = gpt(weights, before.input, nothing)
    after = run(tmp_path, "forward", 2, patches=["h_0.attn.proj.weight=zero"], program=program)
    for output in after.outputs:
        assert torch.allclose(output, expected, atol=1e-5) and not same_bits(output, before.outputs[0])


def test_a_patch_holds_after_a_forward_that_throws(tmp_path: Path, folder: Path) -> None:
    before = bare(folder, "throws", 2)
    expected = gpt(before.weights, before.input, changed("h_0.attn.softmax", CHANGES["=zero"]))
    after = run(tmp_path, "throws", 2, "--tree", patches=["h_0.attn.softmax=zero"])
    assert after.process.stdout == before.process.stdout == "the block fails\n"
    for output in after.outputs:
        assert torch.allclose(output, expected, atol=1e-5)
    names = [name for name, _ in nodes(tree_of(ROOT_NAME, after.process))]
    assert "h_1.attn.softmax" in names and "h_2.attn.softmax" not in names


def test_a_patch_holds_in_every_thread(tmp_path: Path, folder: Path) -> None:
    before = bare(folder, "threads", 6)
    expected = gpt(before.weights, before.input, changed("h_1.attn.output", CHANGES["=zero"]))
    after = run(tmp_path, "threads", 6, "--summary", patches=["h_1.attn.output=zero"])
    for output in after.outputs:
        assert torch.allclose(output, expected, atol=1e-5)
    assert re.search(r"h_1\.attn\.output=zero\D+6\D+6\D+0", after.process.stderr), after.process.stderr


def test_the_hooks_are_all_forward_functions_of_libtorchs_modules() -> None:
    library = Path(torch.__file__).parent / "lib/libtorch_cpu.so"
    listed = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    theirs = {name for name in listed.split() if re.match(r"_ZNK?5torch2nn\w*7forward", name)}
    ours = subprocess.run(
        ["nm", "-D", "--defined-only", GRAPHPATCH.with_name("libgraphpatch.so")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert {name for name in ours.split() if re.match(r"_ZNK?5torch2nn\w*7forward", name)} == theirs
