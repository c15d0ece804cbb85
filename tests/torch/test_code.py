"""`graphpatch show --code` for TorchScript and C++ (tests/python/test_code.py has Python): scopes as functions, the
places where leaves were called, and how values flow."""

import inspect
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import models
from support import KINDS, PROGRAMS, ROOT, Saved, graphpatch, run_process

MODULE = """\
def forward(self, x):
    linear = self.linear(x)
    add = aten.add.{add}
    linear_1 = self.linear(add)
    return (linear, linear_1)
"""
SUBMODULE = """\
Compiled code:
def forward(self, input):
    weight = self.weight
    bias = self.bias
    linear = aten.linear(input, weight, bias)
    return linear
"""


def code(graph: Path, path: str = "") -> str:
    return graphpatch("show", graph, *([path] if path else []), "--code").ok().stdout


def line_of(source: Path, text: str) -> int:
    lines = source.read_text(encoding="utf-8").splitlines()
    found = [number for number, line in enumerate(lines, 1) if text in line]
    assert len(found) == 1, f"{text!r} is in lines {found} of {source}"
    return found[0]


def frame(source: Path, text: str, function: str) -> str:
    return f'File "{source}", line {line_of(source, text)}, in {function}\n    {text}\n'


@pytest.mark.parametrize("kind", KINDS)
def test_torchscript(tuple_output: Callable[[str], Saved], graph_file: Path, kind: str) -> None:
    tuple_output(kind).run(graph=graph_file, tree=False).ok()
    assert code(graph_file) == MODULE.format(add="Scalar(x, 1)" if kind == "scripted" else "Tensor(x, tensor(1))")
    source = Path(inspect.getsourcefile(models.TupleOutputModule) or "")
    here = frame(source, "return self.linear(x), self.linear(x + 1)", "forward")
    assert code(graph_file, "add") == here and code(graph_file, "linear_1.linear") == here
    submodule = code(graph_file, "linear_1")
    if kind == "scripted":
        assert submodule == f"Calling context:\n{here}\n{SUBMODULE}"
    else:  # a trace has no lines of the caller, so those of the archive's own code are shown
        begin, end = submodule.split("\n\n")
        assert end == SUBMODULE and begin.startswith('Calling context:\nFile "code/__torch__/')
        assert begin.endswith("forward\n    return (_0, (linear).forward1(input, ))")
    assert code(graph_file, "linear_1.input") == "input = add\n"
    assert code(graph_file, "linear_1.weight") == "weight = self.weight\n"
    assert code(graph_file, "output") == "return (linear, linear_1)\n"


@pytest.mark.parametrize("kind", KINDS)
def test_torchscript_through_three_modules(transformer: Callable[[str], Saved], graph_file: Path, kind: str) -> None:
    transformer(kind).run(graph=graph_file, tree=False).ok()
    source = Path(inspect.getsourcefile(models.Transformer) or "")
    assert code(graph_file, "layers_1.attn.softmax") == (
        frame(source, "x = layer(x)", "forward")
        + frame(source, "x = x + self.attn(self.ln1(x))", "forward")
        + frame(source, "weights = self.dropout(torch.softmax(scores, dim=-1))", "forward")
    )


SOURCE = ROOT / "tests/programs/cpp/tuple.cpp"


def test_cpp(graph_file: Path) -> None:
    run_process([PROGRAMS / "tuple", graph_file]).ok()
    assert code(graph_file) == MODULE.format(add="Scalar(x, 1)")
    first, second = "auto first = linear(x);", "auto second = linear(x + 1);"
    inside = frame(SOURCE, "auto pair = forward(x);", "net::TupleOutput::operator()")
    forward = frame(SOURCE, second, "net::TupleOutput::forward")
    assert code(graph_file, "add").endswith(inside + forward)
    assert f'File "{SOURCE}"' in code(graph_file, "add").splitlines()[0] and "in main" in code(graph_file, "add")
    leaf = code(graph_file, "linear.linear")
    assert leaf.endswith(
        frame(SOURCE, first, "net::TupleOutput::forward")
        + frame(SOURCE, "at::Tensor output = forward(input);", "net::Linear::operator()")
        + frame(
            SOURCE,
            "at::Tensor forward(const at::Tensor& input) { return torch::linear(input, weight, bias); }",
            "net::Linear::forward",
        )
    )
    frames = leaf.replace(str(ROOT), "<root>")  # the name of the checkout must not matter
    assert not [
        word
        for word in ("at::", "libtorch", "libgraphpatch", "std::")
        if f"in {word}" in frames or word in frames.split("\n")[0]
    ]
    submodule = code(graph_file, "linear_1")
    assert (
        submodule.startswith("Calling context:\n") and submodule.endswith(SUBMODULE) and inside + forward in submodule
    )
    assert code(graph_file, "linear_1.input") == "input = add\n"


def stripped(folder: Path, *options: str) -> Path:
    program = folder / "program"
    subprocess.run(["strip", *options, "-o", program, PROGRAMS / "tuple"], check=True)
    return program


def test_cpp_without_debug_information(graph_file: Path, tmp_path: Path) -> None:
    program = stripped(tmp_path, "--strip-debug")
    run_process([program, graph_file]).ok()
    names = [
        "net::TupleOutput::operator()",
        "net::TupleOutput::forward",
        "net::Linear::operator()",
        "net::Linear::forward",
    ]
    assert code(graph_file, "linear.linear").splitlines()[-4:] == [f'File "{program}", in {name}' for name in names]


def test_cpp_without_any_name(graph_file: Path, tmp_path: Path) -> None:
    program = stripped(tmp_path)
    run_process([program, graph_file]).ok()
    lines = code(graph_file, "linear.linear").splitlines()
    assert len(lines) >= 4 and all(line.startswith(f'File "{program}", in 0x') for line in lines)
    assert code(graph_file) == MODULE.format(add="Scalar(x, 1)")


@pytest.mark.parametrize("place", [".", ".debug"])
@pytest.mark.parametrize("build_id", [True, False])
def test_cpp_with_debug_information_apart(graph_file: Path, tmp_path: Path, place: str, build_id: bool) -> None:
    run_process([PROGRAMS / "tuple", graph_file]).ok()
    expected = code(graph_file, "linear.linear")
    assert f'File "{SOURCE}"' in expected
    (tmp_path / place).mkdir(exist_ok=True)
    debug = tmp_path / place / "tuple.debug"
    program = stripped(tmp_path, *([] if build_id else ["--remove-section", ".note.gnu.build-id"]))
    subprocess.run(["objcopy", "--only-keep-debug", PROGRAMS / "tuple", debug], check=True)
    subprocess.run(["objcopy", f"--add-gnu-debuglink={debug}", program], check=True)
    run_process([program, graph_file]).ok()
    assert code(graph_file, "linear.linear") == expected
    # Debug information of another build must not be used.
    if build_id:
        subprocess.run(["objcopy", "--only-keep-debug", PROGRAMS / "infer", debug], check=True)
    else:
        debug.write_bytes(debug.read_bytes() + b"\0")
    run_process([program, graph_file]).ok()
    assert code(graph_file, "linear.linear").startswith(f'File "{program}", in 0x')


def test_cpp_with_the_binding(graph_file: Path) -> None:
    """Frames of the binding, inlined or not, and of libtorch's headers are left out."""
    graphpatch("run", "--graph", graph_file, "--", PROGRAMS / "cpp_scopes").ok()
    model = ROOT / "bindings/cpp/examples/transformer/transformer.hpp"
    called = frame(
        ROOT / "tests/programs/cpp/scopes.cpp", "const auto logits = model(torch::arange(8).unsqueeze(0));", "main"
    ) + frame(
        model, "for (const auto& layer : *layers) x = layer->as<Block>()->forward(x, hidden);", "GptImpl::forward"
    )
    attention = called + frame(model, "x = x + attn(graphpatch::call(ln_1, x), mask);", "BlockImpl::forward")
    softmax = "scores = scores.masked_fill(mask, -1e9).softmax(-1);"
    assert code(graph_file, "layers_1.attn.softmax") == attention + frame(model, softmax, "AttentionImpl::forward")
    context = code(graph_file, "layers_1.attn").split("\n\n")[0] + "\n"
    assert context.startswith(f"Calling context:\n{attention}")
    # An operation in a module of torch::nn that graphpatch::call has called.
    norm = "x = x + attn(graphpatch::call(ln_1, x), mask);"
    assert code(graph_file, "layers_0.ln_1.layer_norm") == called + frame(model, norm, "BlockImpl::forward")


def test_flat_cpp(graph_file: Path, tmp_path: Path) -> None:
    """Modules call each other through libtorch's headers. The program's own classes are in an unnamed namespace."""
    source = ROOT / "tests/programs/cpp/flat.cpp"
    graphpatch("run", "--graph", graph_file, "--", PROGRAMS / "flat", "nn", tmp_path / "out.pt").ok()
    called = frame(source, "for (int i = 0; i < n; ++i) outputs.push_back(net(ids));", "main") + frame(
        source, "auto x = blocks->forward(embed(ids));", "(anonymous namespace)::NetImpl::forward"
    )
    block = "torch::Tensor forward(torch::Tensor x) { return norm(torch::tanh(fc(x)) * scale) + x; }"
    for path in ("blocks.sub_0.fc.addmm", "blocks.sub_1.tanh", "blocks.sub_1.norm.layer_norm"):
        assert code(graph_file, path) == called + frame(source, block, "(anonymous namespace)::BlockImpl::forward")
    assert code(graph_file, "embed.embedding") == called
    # Inputs of modules are not seen.
    assert code(graph_file, "blocks.sub_0.fc").startswith("def forward(self):\n    weight = self.weight\n")
    program = tmp_path / "flat"
    subprocess.run(["strip", "--strip-debug", "-o", program, PROGRAMS / "flat"], check=True)
    graphpatch("run", "--graph", graph_file, "--", program, "ops", tmp_path / "out.pt").ok()
    assert code(graph_file, "relu") == (
        f'File "{program}", in main\nFile "{program}", in (anonymous namespace)::Plain::forward\n'
    )


def test_cpp_below_generated_code_and_without_unwind_tables(graph_file: Path, tmp_path: Path) -> None:
    run_process([PROGRAMS / "tuple", graph_file, "--generated"]).ok()
    leaf = code(graph_file, "linear.linear")
    assert "in net::Linear::forward" in leaf and '", in main' not in leaf, (
        "the walk ends where nothing describes the code"
    )
    bare = tmp_path / "bare"
    subprocess.run(["objcopy", "--remove-section", ".eh_frame_hdr", PROGRAMS / "tuple", bare], check=True)
    shutil.copymode(PROGRAMS / "tuple", bare)
    run_process([bare, graph_file]).ok()
    assert code(graph_file) == MODULE.format(add="Scalar(x, 1)")


class Flow(nn.Module):
    """Views, containers, in-place operations, an optional argument, and a tensor that no node has."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.inner = Inner()

    def forward(self, x: Tensor, bias: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        parts = x.chunk(2, dim=1)
        y = torch.cat([parts[1], parts[0] * self.scale], dim=1)
        y.add_(1.0, alpha=2.0)
        first = y[0]
        z = self.inner(parts[1], first)
        if bias is not None:
            z = z + bias
        return z.sum(dim=[0], dtype=torch.float64), [first, torch.full([2], 0.5)]


class Inner(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.clamp(a, max=2.0) - b.mean()


def test_values_flow(exported: Callable[..., Saved], graph_file: Path) -> None:
    torch.manual_seed(0)
    exported("flow", Flow(), (torch.randn(3, 4),)).run(graph=graph_file, tree=False).ok()
    assert code(graph_file).splitlines() == [
        "def forward(self, x, bias):",
        "    chunk = aten.chunk(x, 2, 1)",
        "    scale = self.scale",
        "    mul = aten.mul.Tensor(chunk[0], scale)",
        "    cat = aten.cat([chunk[1], mul], 1)",
        "    add_ = aten.add_.Scalar(cat, 1.0, 2.0)",
        "    select = aten.select.int(add_, 0, 0)",
        "    inner = self.inner(chunk[1], select)",
        "    sum_1 = aten.sum.dim_IntList(inner, [0], dtype=torch.float64)",
        "    full = aten.full([2], 0.5)",
        "    return (sum_1, [select, full])",
    ]
    assert code(graph_file, "inner").splitlines()[-5:] == [
        "def forward(self, a, b):",
        "    clamp = aten.clamp(a, max=2.0)",
        "    mean = aten.mean(b)",
        "    sub = aten.sub.Tensor(clamp, mean)",
        "    return sub",
    ]


@pytest.mark.parametrize("options", [[], ["--freeze"], ["--freeze", "--optimize"]], ids=" ".join)
def test_operations_in_branches_and_loops(exported: Callable[..., Saved], graph_file: Path, options: list[str]) -> None:
    saved = exported("branches", models.Branches(), (torch.ones(2, 3),))
    saved.run("--runs", 3, *options, graph=graph_file, tree=False).ok()
    source = Path(inspect.getsourcefile(models.Branches) or "")
    helped = frame(source, "return x.sigmoid()", "helped")
    assert code(graph_file, "sigmoid") == frame(source, "y = self.helped(y * 2.0)", "forward") + helped
    assert code(graph_file, "relu") == frame(source, "y = self.helped(y).relu()", "forward")
    assert code(graph_file, "sigmoid_2") == frame(source, "y = self.helped(y).relu()", "forward") + helped
