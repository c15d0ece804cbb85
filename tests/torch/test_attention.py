"""The inside of attention under `graphpatch run`: in TorchScript, in C++ and in Python, with the flag and by paths."""

import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from support import GRAPHPATCH, PROGRAMS, Saved, graphpatch, run_process, same_bits, save

NAME = "scaled_dot_product_attention"


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).view(2, 5, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return mixed.transpose(1, 2).reshape(2, 5, 16)

    def by_hand(self, x: Tensor, factors: Tensor) -> Tensor:
        """The same with the probabilities of each head times a factor."""
        query, key, value = self.qkv(x).view(2, 5, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        scores = query @ key.transpose(-2, -1) / 2 + torch.full((5, 5), -math.inf).triu(1)
        mixed = (torch.softmax(scores, -1) * factors.view(4, 1, 1)) @ value
        return mixed.transpose(1, 2).reshape(2, 5, 16)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = Block()

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(x) + x


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return Model().eval()


@pytest.fixture(scope="module")
def saved(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Saved]:
    return lambda kind: save(model, (torch.randn(2, 5, 16),), tmp_path_factory.mktemp(kind), kind)


@pytest.mark.parametrize("kind", ["scripted", "traced", "frozen"])
def test_a_script(kind: str, model: Model, saved: Callable[[str], Saved], tmp_path: Path) -> None:
    script = saved(kind)
    bare = script.bare().ok().output
    scope = f"attn.{NAME}" if kind != "frozen" else NAME
    values = tmp_path / "values.safetensors"
    path = f"{scope}.probabilities"
    shown = script.run(extra=["--inside", "attention", "--probe", path, "--save", values]).ok()
    assert same_bits(shown.output, bare)
    assert f"─{NAME}: Graph(8)" in shown.tree and "─probabilities: Tensor(2, 4, 5, 5)" in shown.tree
    (kept,) = load_file(values).values()
    query, key, value = model.attn.qkv(script_input(script)).view(2, 5, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
    expected = torch.ops.aten._scaled_dot_product_attention_math(query, key, value, is_causal=True)[1]
    assert same_bits(kept, expected)
    # Without the flag, a path that leads inside is enough.
    patched = script.run(patches=[f"{path}[:, 1]=zero"]).ok()
    by_hand = model.attn.by_hand(script_input(script), torch.tensor([1.0, 0.0, 1.0, 1.0])) + script_input(script)
    assert torch.allclose(patched.output, by_hand, atol=5e-6)
    assert not torch.allclose(patched.output, bare, atol=1e-2)
    assert "the operation's result is then computed by the math path" in patched.stderr
    plain = script.run().ok()
    assert f"─{NAME}: Tensor(2, 4, 5, 4)" in plain.tree and same_bits(plain.output, bare)


def script_input(script: Saved) -> Tensor:
    (x,) = torch.load(script.inputs)
    return x


def test_a_program_without_modules(tmp_path: Path) -> None:
    def run(*options: str) -> tuple[str, Tensor]:
        out = tmp_path / "out.pt"
        before = [GRAPHPATCH, "run", *options, "--"] if options else []
        done = run_process([*before, PROGRAMS / "flat", "attention", out]).ok()
        _, x, outputs = torch.load(out, weights_only=False)
        return done.stderr, torch.stack([x, outputs[0]])

    _, bare = run()
    told, shown = run("--tree", "--inside", "attention")
    assert same_bits(bare, shown) and f"─{NAME}: Graph(8)" in told
    # A pattern that does not name the operation does not ask for its inside.
    told, shown = run("--tree", "--patch", "**=add:0")
    assert same_bits(bare, shown) and f"─{NAME}: Tensor(2, 2, 5, 4)" in told
    told, patched = run("--patch", f"{NAME}.probabilities[:, 0]=zero")
    x = patched[0]
    assert patched[1][:, 0].abs().max() == 0 and "the math path" in told
    assert torch.allclose(patched[1][:, 1], F.scaled_dot_product_attention(x, x, x, is_causal=True)[:, 1], atol=5e-6)


def test_a_python_program_and_the_saved_graph(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import torch\n"
        "from torch import nn\n"
        "torch.manual_seed(0)\n"
        "layer = nn.MultiheadAttention(8, 2, batch_first=True)\n"
        "x = torch.randn(1, 3, 8)\n"
        "print(layer(x, x, x, need_weights=False)[0].sum().item())\n"
    )
    graphs = [tmp_path / f"{n}.json" for n in range(2)]
    bare = graphpatch("run", "--graph", graphs[0], sys.executable, script).ok()
    shown = graphpatch("run", "--graph", graphs[1], "--inside", "attention", sys.executable, script).ok()
    assert bare.stdout == shown.stdout
    # Both graphs take the paths that lead inside, and the operation's own.
    for graph in graphs:
        for path in (f"{NAME}.probabilities", f"{NAME}.output", NAME, f"{NAME}*.scores", f"{NAME}*"):
            graphpatch("check", graph, "--patch", f"{path}=zero").ok()
        assert graphpatch("check", graph, "--patch", f"{NAME}.softmax=zero").code == 2
    assert f"{NAME}.probabilities: Tensor(1, 2, 3, 3)" in graphpatch("show", graphs[1], "--find", "prob").ok().stdout
    code = graphpatch("show", graphs[1], NAME, "--code").ok().stdout
    assert "    probabilities = aten.softmax.int(scores)\n" in code
    assert "def forward(self, query, key, value):" in code
    zero = graphpatch(
        "run", "--patch", f"{NAME}=add:1", "--patch", f"{NAME}.probabilities=zero", sys.executable, script
    ).ok()
    one = graphpatch("run", "--patch", f"{NAME}=replace:1", sys.executable, script).ok()
    assert zero.stdout == one.stdout != bare.stdout


def test_a_sweep_over_heads(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import torch\n"
        "import torch.nn.functional as F\n"
        "class Model(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return F.scaled_dot_product_attention(x, x, x)\n"
        "torch.manual_seed(0)\n"
        "print('loss', Model()(torch.randn(1, 2, 3, 4)).sum().item())\n"
    )
    table = tmp_path / "sweep.csv"
    sweep = [
        "sweep",
        "--nodes",
        f"{NAME}*.probabilities",
        "--metric",
        r"loss=regex:loss (\S+)",
        "--inside",
        "attention",
    ]
    graphpatch(*sweep, "-o", table, "--", sys.executable, script).ok()
    rows = table.read_text().splitlines()
    assert len(rows) == 2 and f"{NAME}.probabilities" in rows[1]


def test_what_the_flag_takes() -> None:
    refused = graphpatch("run", "--inside", "softmax", "--", "true")
    assert refused.code == 2 and "attention" in refused.stderr
