"""The inside of finished packages of AOTInductor, in C++ and Python: values that are in the package's memory are nodes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import aoti
from held import Holder
from libgraphpatch import AddPatch, Patch, PatchableGraph, PatchError, ProbePatch, ReplacePatch, ZeroPatch
from libgraphpatch.packages import Named, name_package
from support import GRAPHPATCH, PROGRAMS, Result, run_process, same_bits, trees_in

BEFORE = "aoti_model."
# What every package of the GPT keeps, by the ends of their paths.
KINDS = ("linear", "matmul", "matmul_1", "softmax", "gelu", "layer_norm")


def holder(file: Path) -> Holder:
    """A module that calls the package."""
    return Holder(torch._inductor.aoti_load_package(str(file)))


@dataclass
class Both:
    """A package whose values have names, and the program that it was compiled from."""

    plain: Path
    file: Path
    inputs: Path
    x: Tensor
    also: Tensor
    named: Named
    program: PatchableGraph
    package: PatchableGraph
    tolerance: float
    """How far the results of the two are from each other, with some room."""

    def pair(self, patches: dict[str, Patch[Any]], x: Tensor) -> tuple[Tensor, Tensor]:
        """The results of the program and of the package under the same patches."""
        with torch.no_grad(), self.program.patch(patches, on_missing="raise"):
            wanted = self.program(x).clone()
        given = {BEFORE + path: patch for path, patch in patches.items()}
        with torch.no_grad(), self.package.patch(given, on_missing="raise"):
            return wanted, self.package(x).clone()

    def cpp(
        self, out: Path, *before: Any, file: Path | None = None, options: tuple[Any, ...] = ()
    ) -> tuple[Result, Any]:
        """Runs the C++ program under `graphpatch run`. Returns its outputs by thread and run."""
        command = [GRAPHPATCH, "run", *before, "--"] if before else []
        done = run_process([*command, PROGRAMS / "packaged", file or self.file, self.inputs, out, *options]).ok()
        return done, torch.load(out, weights_only=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("packages")
    aoti.compile_all(made)
    return made


def _both(folder: Path, name: str) -> Both:
    plain, file, inputs = folder / f"{name}.pt2", folder / f"{name}-named.pt2", folder / f"{name}-inputs.pt"
    (x,) = torch.load(inputs)
    also = x if name == "gpt" else torch.randn(7, *x.shape[1:])
    program = torch.export.load(folder / f"{name}-program.pt2")
    named = name_package(program, plain, x, output=file, also=None if name == "gpt" else (also,))
    module = program.module()
    with torch.no_grad():
        apart = (module(x) - holder(plain)(x)).abs().max().item()
        tolerance = 8 * apart + 1e-6 * module(x).abs().max().item()
    package = PatchableGraph(holder(file), x)
    return Both(plain, file, inputs, x, also, named, PatchableGraph(module, x), package, tolerance)


@pytest.fixture(scope="module")
def gpt(folder: Path) -> Both:
    return _both(folder, "gpt")


@pytest.fixture(scope="module")
def free(folder: Path) -> Both:
    return _both(folder, "free")


def test_without_names_values_have_those_of_kernels(gpt: Both, tmp_path: Path) -> None:
    bare = gpt.cpp(tmp_path / "bare.pt", file=gpt.plain)[1]
    done, outputs = gpt.cpp(tmp_path / "out.pt", "--tree", file=gpt.plain)
    assert same_bits(outputs, bare)
    tree = trees_in(done.stderr)[0]  # behind it stands what the program itself calls
    assert tree.startswith("<root>: "), tree
    for line in ("bmm: Tensor(8, 6, 6)", "addmm: Tensor(12, 96)", "cpp_fused_gelu_view_5: Tensor(2, 6, 128)"):
        assert line in tree, tree
    # No operation inside a kernel is a node, and no scope stands there twice.
    assert "resolve_conj" not in tree and tree.count("layers_0:") == 1 and tree.count("attn:") == 2, tree


def test_names_are_those_of_the_program(gpt: Both, tmp_path: Path) -> None:
    paths = {str(node) for node in gpt.program.graph.find()}
    wanted = {path for path in paths if path.rpartition(".")[2] in KINDS}
    assert len(wanted) >= 18 and wanted <= set(gpt.named.names), wanted - set(gpt.named.names)
    # Its elements have another order than those of the tensor in memory.
    assert any(path.rpartition(".")[2].startswith("transpose") for path in gpt.named.names), gpt.named.names
    assert set(gpt.named.names) | set(gpt.named.missing) <= paths
    done, _ = gpt.cpp(tmp_path / "out.pt", "--graph", tmp_path / "graph.json")
    graphs = json.loads((tmp_path / "graph.json").read_text())["graphs"]
    shapes = {path: shape for graph in graphs for path, shape in _shapes(graph["root"], "")}
    for path in gpt.named.names:
        assert shapes[path] == list(gpt.program.graph[path]._shape), path


def _shapes(node: dict[str, Any], path: str) -> Any:
    for child in node.get("children", ()):
        below = f"{path}.{child['name']}" if path else child["name"]
        if isinstance(child.get("value"), dict) and "tensor" in child["value"]:
            yield below, child["value"]["tensor"]["shape"]
        yield from _shapes(child, below)


@pytest.mark.parametrize("what", ["zero", "add", "replace", "slice"])
def test_every_named_value_takes_patches(gpt: Both, what: str) -> None:
    bare = gpt.program(gpt.x)
    moved = 0
    for path in gpt.named.names:
        shape = tuple(gpt.program.graph[path]._shape)
        patch: Patch[Any] = {
            "zero": lambda: ZeroPatch(),
            "add": lambda: AddPatch(value=0.25),
            "replace": lambda: ReplacePatch(value=torch.linspace(-1, 1, int(torch.Size(shape).numel())).reshape(shape)),
            "slice": lambda: ZeroPatch(slice=(slice(None), 1)),
        }[what]()
        wanted, found = gpt.pair({path: patch}, gpt.x)
        assert (wanted - found).abs().max().item() <= gpt.tolerance, path
        moved += not torch.allclose(wanted, bare, atol=gpt.tolerance)
    assert moved >= len(gpt.named.names) // 2


def test_every_named_value_is_probed(gpt: Both) -> None:
    probes = {path: ProbePatch() for path in gpt.named.names}
    others = {BEFORE + path: ProbePatch() for path in gpt.named.names}
    with torch.no_grad(), gpt.program.patch(probes), gpt.package.patch(others):
        bare = gpt.package(gpt.x)
        gpt.program(gpt.x)
    assert same_bits(bare, holder(gpt.plain)(gpt.x)), "looking changes nothing"
    for path, probe in probes.items():
        kept = others[BEFORE + path].activation
        assert torch.allclose(probe.activation, kept, rtol=1e-4, atol=1e-4), path


def test_a_fused_value_refuses_patches(gpt: Both, tmp_path: Path) -> None:
    path = next(path for path in gpt.named.missing if path.endswith("masked_fill"))
    text = "value that the package does not keep (nearest: `layers_0.attn.matmul` and `layers_0.attn.softmax`)"
    with pytest.raises((KeyError, PatchError)) as refused, gpt.package.patch({BEFORE + path: ZeroPatch()}):
        gpt.package(gpt.x)
    assert "does not keep" in str(refused.value), refused.value
    command = [GRAPHPATCH, "run", "--tree", f"--patch={path}=zero", "--"]
    done = run_process([*command, PROGRAMS / "packaged", gpt.file, gpt.inputs, tmp_path / "out.pt"])
    assert done.code != 0 and f"masked_fill: {text}\n" in done.stderr, done.stderr
    assert f"{path}=zero failed" in done.stderr and done.stderr.count(text) >= 2, done.stderr
    assert same_bits(torch.load(tmp_path / "out.pt", weights_only=False), gpt.cpp(tmp_path / "bare.pt")[1])


def test_cpp_programs_patch_and_keep(gpt: Both, tmp_path: Path) -> None:
    path = "layers_1.attn.softmax"
    with torch.no_grad(), gpt.program.patch({path: [probe := ProbePatch(), ZeroPatch(slice=(slice(None), 2))]}):
        wanted = gpt.program(gpt.x)
    kept = tmp_path / "kept.safetensors"
    patches = f"--probe={path}", "--save", kept, f"--patch={path}[:, 2]=zero"
    for options in ((), ("--runner",)):
        outputs = gpt.cpp(tmp_path / "out.pt", *patches, options=options)[1]
        assert torch.allclose(outputs[0][0][0], wanted, atol=gpt.tolerance)
        (value,) = load_file(kept).values()
        assert torch.allclose(value, probe.activation, atol=1e-5)


def test_threads_and_runners(gpt: Both, tmp_path: Path) -> None:
    options = ("--threads", 3, "--runs", 4)
    node = "layers_0.ln_1.layer_norm"
    with torch.no_grad(), gpt.program.patch({node: ZeroPatch()}):
        wanted = gpt.program(gpt.x)
    for thread in gpt.cpp(tmp_path / "out.pt", f"--patch={node}=zero", options=options)[1]:
        for (output,) in thread:
            assert torch.allclose(output, wanted, atol=gpt.tolerance)


def test_two_models_in_one_process_and_other_sizes(gpt: Both, free: Both) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = holder(gpt.file), holder(free.file)

        def forward(self, ids: Tensor, x: Tensor) -> tuple[Any, Any]:
            return self.one(ids), self.other(x)

    pg = PatchableGraph(Two(), gpt.x, free.x)
    one, other = "layers_0.attn.qkv.linear", "softmax"
    assert other in free.named.names and "matmul" in free.named.names
    for x in (free.x, free.also):
        with torch.no_grad(), gpt.program.patch({one: ZeroPatch()}), free.program.patch({other: AddPatch(value=0.5)}):
            wanted = gpt.program(gpt.x), free.program(x)
        patches = {f"one.{BEFORE}{one}": ZeroPatch(), f"other.{BEFORE}{other}": AddPatch(value=0.5)}
        with torch.no_grad(), pg.patch(patches, on_missing="raise"):
            found = pg(gpt.x, x)
        for a, b, both in zip(wanted, found, (gpt, free)):
            assert torch.allclose(a, b, atol=both.tolerance)


def test_values_of_other_sizes_are_patched(free: Both) -> None:
    assert {"norm.layer_norm", "qkv.linear", "up.linear"} <= set(free.named.names)
    for x in (free.x, free.also):
        for path in free.named.names:
            wanted, found = free.pair({path: ZeroPatch(slice=(slice(None), 1))}, x)
            assert torch.allclose(wanted, found, atol=free.tolerance), (path, x.shape)


def test_names_of_another_compilation_are_refused(gpt: Both, free: Both, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pt2"
    wrong.write_bytes(free.plain.read_bytes())
    aoti.copy_names(gpt.file, wrong)
    pg = PatchableGraph(holder(wrong), free.x)
    assert any("was made for another compilation" in note for note in pg.notes), pg.notes
    assert "aoti_model" in pg.graph.keys() and "norm" not in str(repr(pg.graph))
