"""Patterns in the command's patches: all matching nodes are patched, with and without a saved graph, in every host."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from support import GRAPHPATCH, KINDS, PROGRAMS, Saved, graphpatch, run_process, same_bits, save
from sweep_model import INPUT, Net, net

SCRIPT = """
import sys, torch
from torch import nn

class Scale(nn.Module):
    def forward(self, x, times: int, mask=None):
        return (x * times, times)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = Scale(), Scale()

    def forward(self, x):
        x, n = self.first(x, 2)
        x, n = self.second(x, n + 1)
        return x

x = Net()(torch.ones(3))
print(x.tolist())
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Saved]:
    made = {kind: save(net(), (INPUT,), tmp_path_factory.mktemp(kind), kind) for kind in KINDS}
    return lambda kind: made[kind]


@pytest.fixture()
def script(tmp_path: Path) -> list[Any]:
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    return [sys.executable, file]


def expected(change: Callable[[Net], None]) -> torch.Tensor:
    model = net()
    change(model)
    with torch.no_grad():
        return model(INPUT)


def zero_output(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(output)


def zero_downs(model: Net) -> None:
    for block in model.blocks:
        block.down.register_forward_hook(zero_output)


def zero_biases(model: Net) -> None:
    for block in model.blocks:
        torch.nn.init.zeros_(block.up.bias)


def first_column(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return torch.cat([output[:, :1] + 1, output[:, 1:]], 1)


def add_to_columns(model: Net) -> None:
    for block in [*model.blocks][:2]:
        block.up.register_forward_hook(first_column)


CASES = [
    ("blocks_*.down.output=zero", zero_downs),
    ("**.down.output=zero", zero_downs),
    ("blocks_?.up.bias=zero", zero_biases),
    ("blocks_*.up.b*=zero", zero_biases),
    ("blocks_{0,1}.up.output[:, 0]=add:1", add_to_columns),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("patch, change", CASES, ids=[patch for patch, _ in CASES])
def test_a_pattern_patches_the_first_run_of_all(programs: Any, kind: str, patch: str, change: Any) -> None:
    """No graph was saved before: matching nodes are found while they first run."""
    result = programs(kind).run(patches=[patch], tree=False)
    assert result.code == 0, result.stderr
    assert same_bits(result.outputs[0][0], expected(change))


def test_patterns_and_paths_act_in_the_order_given(programs: Any) -> None:
    patches = ["blocks_1.down.output=replace:2", "blocks_*.down.output[:, 0]=add:1", "blocks_*.down.output[:, 1]=zero"]

    def change(model: Net) -> None:
        def hook(number: int) -> Callable[..., torch.Tensor]:
            def changed(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
                output = torch.full_like(output, 2) if number == 1 else output.clone()
                output[:, 0] += 1
                output[:, 1] = 0
                return output

            return changed

        for number, block in enumerate(model.blocks):
            block.down.register_forward_hook(hook(number))

    result = programs("scripted").run(patches=patches, tree=False, extra=["--summary"])
    assert result.code == 0, result.stderr
    assert same_bits(result.outputs[0][0], expected(change))


@pytest.mark.parametrize(
    "patch, output",
    [
        # ((1 + 1) * 2 + 1) * 3: a pattern does not match numbers, None or tuples.
        ("*.x=add:1", [15.0] * 3),
        ("**=add:0", [6.0] * 3),
        ("{first,second}.{x,times,mask}=add:1", [15.0] * 3),
        ("*.output|sub_0=add:1", [10.0] * 3),
    ],
)
def test_a_pattern_means_tensors(script: list[Any], patch: str, output: list[float]) -> None:
    result = run_process([GRAPHPATCH, "run", "--patch", patch, "--", *script])
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout == f"{output}\n"


def test_a_pattern_that_means_nothing_is_told(programs: Any, script: list[Any], tmp_path: Path) -> None:
    result = programs("scripted").run(patches=["blocks_*.dwon.output=zero"], tree=False)
    assert result.code == 3
    assert "blocks_*.dwon.output=zero never matched" in result.stderr
    assert "is a pattern that matches no tensor" in result.stderr and "blocks_0.down.output" in result.stderr
    # The name exists, but its value is a number, which patterns do not match.
    result = run_process([GRAPHPATCH, "run", "--patch", "*.times=add:1", "--", *script])
    assert result.code == 3 and "*.times=add:1 never matched" in result.stderr
    result = graphpatch("run", "--patch", "blocks_{0.output=zero", "--", *script)
    assert result.code == 2 and result.stdout == "" and "pattern of nodes" in result.stderr


def test_values_of_a_pattern_are_kept_by_the_nodes_names(programs: Any, tmp_path: Path) -> None:
    program, graph, kept = programs("scripted"), tmp_path / "g.json", tmp_path / "kept.safetensors"
    options = ["--probe", "blocks_*.down.output", "--save", kept]
    result = program.run(tree=False, extra=options)
    assert result.code == 2 and "--against FILE" in result.stderr
    program.run(tree=False, graph=graph).ok()
    result = program.run(tree=False, extra=[*options, "--against", graph])
    assert result.code == 0, result.stderr
    names = [f"blocks_{number}.down.output" for number in range(4)]
    values = load_file(kept)
    assert set(values) == set(names)
    model, seen = net(), []
    for block in model.blocks:
        block.down.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        model(INPUT)
    assert all(same_bits(values[name], output) for name, output in zip(names, seen, strict=True))


def test_check_and_show_know_patterns(programs: Any, tmp_path: Path) -> None:
    graph = tmp_path / "g.json"
    programs("scripted").run(tree=False, graph=graph).ok()
    assert graphpatch("check", "--patch", "blocks_*.down.output[:, 7]=zero", graph).code == 0
    result = graphpatch("check", "--patch", "blocks_*.up.output=zero", "--probe", "blok_*.down.output", graph)
    assert result.code == 2 and "'blok_*.down.output' matches no tensor of the graph" in result.stderr
    assert "nearest: blocks_0.down.output" in result.stderr
    result = graphpatch("check", "--patch", "blocks_*.*.output[:, 8]=zero", graph)
    assert result.code == 2 and "blocks_0.down.output" in result.stderr and "blocks_0.up" not in result.stderr
    lines = [f"blocks_{number}.down.output: Tensor(2, 8)" for number in range(4)]
    assert graphpatch("show", graph, "blocks_*.down.output").ok().stdout.splitlines() == lines
    assert graphpatch("show", graph, "--find", "blocks_*.down.output").ok().stdout.splitlines() == lines
    assert graphpatch("show", graph, "**.output", "--shape", "2,3").ok().stdout.splitlines() == [
        "head.output: Tensor(2, 3)",
        "output: Tensor(2, 3)",
    ]
    assert graphpatch("show", graph, "blocks_*.absent").code == 1
    assert graphpatch("show", graph, "blocks_*", "--code").code == 2


def test_a_patch_file_has_patterns(programs: Any, tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text('[[patch]]\npath = "blocks_*.down.output"\nkind = "zero"\n')
    result = programs("traced").run(tree=False, extra=["--patches", file])
    assert result.code == 0, result.stderr
    assert same_bits(result.outputs[0][0], expected(zero_downs))


def test_patterns_where_graphs_are_looked_at(tmp_path: Path) -> None:
    """In `complete`, `view` and `diff`; what means nothing is refused, with what may have been meant."""
    graphs = []
    for rows in (2, 3):
        saved = save(net(), (INPUT[:1].expand(rows, -1).clone(),), tmp_path / str(rows))
        graphs.append(tmp_path / f"{rows}.json")
        graphpatch("run", "--graph", graphs[-1], "--", PROGRAMS / "runner", *saved.args(), tmp_path / "out.pt").ok()
    graph = graphs[0]
    assert graphpatch("complete", graph, "blocks_*.u").ok().stdout == "blocks_*.up\n"
    assert set(graphpatch("complete", graph, "blocks_[12].up.").ok().stdout.split()) >= {"blocks_[12].up.weight"}
    assert graphpatch("complete", graph, "blocs_*.").ok().stdout == ""

    drawn = graphpatch("view", graph, "blocks_{1,2}", "--dot").ok().stdout
    one = [graphpatch("view", graph, f"blocks_{number}", "--dot").ok().stdout for number in (1, 2)]
    assert drawn == "".join(one)
    page = graphpatch("view", graph, "blocks_*.up", "-o", tmp_path / "g.html").ok()
    assert "the pattern means 4 nodes; the page begins at blocks_0.up" in page.stderr
    refused = graphpatch("view", graph, "blocs_*", "--dot")
    assert refused.code == 2 and "no scope that 'blocs_*' means" in refused.stderr and "blocks_0" in refused.stderr

    found = graphpatch("diff", *graphs, "--nodes", "blocks_*.up.output")
    assert found.code == 1 and found.stdout.count("~ ") == 4 and found.stdout.count(".up.output: ") == 4
    assert graphpatch("diff", *graphs, "--nodes", "**.weight").code == 0
    refused = graphpatch("diff", *graphs, "--nodes", "blocs_*")
    assert refused.code == 2 and "--nodes blocs_*: neither graph has such a node" in refused.stderr
