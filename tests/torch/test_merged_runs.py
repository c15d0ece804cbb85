"""Runs that differ, in TorchScript and under `graphpatch run` (tests/python/test_merged_runs.py has the package): their common
graph claims of no run what that run did not do, and a patch that no run came by is reported."""

import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from support import ENVIRONMENT, GRAPHPATCH, ROOT, Result, graphpatch, nodes, same_bits, save, tree_in

FAST = "_transformer_encoder_layer_fwd"


class Branches(nn.Module):
    """Goes another way in each of three calls."""

    n: int

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Linear(2, 2)
        self.n = 0

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1
        if self.n % 3 == 1:
            y = torch.relu(x)
        elif self.n % 3 == 2:
            y = torch.tanh(x)
        else:
            return x
        y = self.block(y)
        return y + x


def code(graph: Path) -> list[str]:
    return [line.strip() for line in graphpatch("show", graph, "--code").ok().stdout.splitlines()]


def test_arguments_stand_beside_the_nodes_of_their_run(tmp_path: Path, graph_file: Path) -> None:
    saved = save(Branches(), (torch.ones(1, 2),), tmp_path)
    saved.run("--runs", 6, graph=graph_file, tree=False).ok()
    lines = code(graph_file)
    block = lines.index("block = self.block(relu)  # in some runs")
    assert lines[block + 1] == "# or, in other runs: block = self.block(tanh)"
    assert {"relu = aten.relu(x)  # in some runs", "tanh = aten.tanh(x)  # in some runs"} <= set(lines[:block])
    assert lines[-2:] == ["return add", "# or, in other runs: return x"]
    # A patch on one way holds in the runs that go that way.
    outputs = saved.run("--runs", 6, patches=["tanh=zero"], tree=False).ok().outputs[0]
    bare = saved.bare("--runs", 6).ok().outputs[0]
    assert [same_bits(one, other) for one, other in zip(outputs, bare)] == [True, False, True] * 2
    # No run goes the third way, so that a patch on the second one is reported.
    missed = saved.run("--runs", 1, patches=["tanh=zero"], tree=False)
    assert missed.code == 3 and "tanh=zero" in missed.stderr and "never matched" in missed.stderr, missed.stderr


class Modes(nn.Module):
    """Calls another operation where gradients are on, as fast paths do."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) if torch.is_grad_enabled() else torch.tanh(x)


def test_an_operation_that_exists_only_without_gradients_in_torchscript(tmp_path: Path) -> None:
    saved = save(Modes(), (torch.ones(1, 3),), tmp_path)
    assert not saved.run("--no-grad", patches=["tanh=zero"]).ok().output.any()
    missed = saved.run("--grad", patches=["tanh=zero"])
    assert "relu" in [path for path, _ in nodes(missed.tree)] and missed.output.any()
    assert missed.code == 3 and "tanh=zero" in missed.stderr and "never matched" in missed.stderr, missed.stderr


SCRIPT = """
import torch
from torch import nn
torch.manual_seed(0)
layer, x = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval(), torch.randn(1, 3, 4)
with torch.no_grad():
    print(bool(layer(x).any()))
print(bool(layer(x).any()))
"""
MAPPED = """
import torch
class Mapped(torch.nn.Module):
    def forward(self, x):
        return torch.vmap(lambda row: row.sin())(x).exp()
print(Mapped()(torch.ones(3, 2)).tolist())
"""


def script(text: str, *options: object) -> Result:
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT / "bindings/python")}
    command = [GRAPHPATCH, "run", *options, "--", sys.executable, "-c", text]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment)
    return Result(done.stdout, done.stderr, done.returncode)


def test_one_program_with_both_ways(graph_file: Path) -> None:
    script(SCRIPT, "--graph", graph_file).ok()
    lines = code(graph_file)
    assert any(line.startswith(f"{FAST} = aten.{FAST}") and line.endswith("  # in some runs") for line in lines), lines
    assert any(line.startswith("self_attn = self.self_attn(") and line.endswith("  # in some runs") for line in lines)
    assert script(SCRIPT, "--patch", f"{FAST}=zero").ok().stdout == "False\nTrue\n"
    assert script(SCRIPT, "--patch", "norm2.output=zero").ok().stdout == "True\nFalse\n"
    missed = script(SCRIPT, "--patch", f"{FAST}=zero", "--patch", "norm3.output=zero")
    assert missed.code == 3 and "norm3.output=zero" in missed.stderr and missed.stdout == "False\nTrue\n", missed.stderr


def test_the_shape_inside_vmap_is_that_of_one_example() -> None:
    result = script(MAPPED, "--tree").ok()
    assert dict(nodes(tree_in(result.stderr)))["sin"] == "Tensor(2)"
    assert dict(nodes(tree_in(result.stderr)))["exp"] == "Tensor(3, 2)"
    assert (
        script(MAPPED, "--patch", "sin[0]=zero").ok().stdout
        == str([[1.0, torch.ones(2).sin()[1].exp().item()]] * 3) + "\n"
    )
