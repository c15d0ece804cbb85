"""The C++ binding: its headers, its functions, and that a C++ model has the same tree as in Python and TorchScript."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cpp_models import Gpt, state
from support import PROGRAMS, ROOT, Saved, nodes, run_process, save, tree_in

BINDING = ROOT / "bindings" / "cpp"
INCLUDE = ["-I", ROOT / "include", "-I", BINDING]
TORCH = re.search(r"^TORCH_CXXFLAGS := (.*)$", (PROGRAMS / "torch.mk").read_text(), flags=re.M)[1].split()  # type: ignore[index]
# The oldest C++ standard that libtorch's headers accept.
STANDARD = next(flag.removeprefix("-std=") for flag in TORCH if flag.startswith("-std="))


def cases(program: str) -> list[str]:
    return subprocess.run([PROGRAMS / program], capture_output=True, text=True, check=True).stdout.split()


def test_every_case_is_run() -> None:
    assert sorted(cases("cpp_modules")) == MODULES and sorted(cases("cpp_alone")) == ALONE


MODULES = [
    "any_names",
    "functions",
    "gradients",
    "missed",
    "names",
    "off",
    "runs",
    "strangers",
    "the_inside_of_attention",
    "threads",
    "throwing_callbacks",
    "types",
    "values",
    "ways_out",
    "written_views",
]
ALONE = ["arrays", "graphs", "keys", "missed", "nodes", "patches"]


@pytest.mark.parametrize("case", MODULES)
def test_modules(case: str) -> None:
    result = run_process([PROGRAMS / "cpp_modules", case]).ok()
    assert result.stdout == "all as it must be\n"


@pytest.mark.parametrize("case", ALONE)
def test_without_libtorch(case: str, tuple_output: Callable[[str], Saved], tmp_path: Path, monkeypatch: Any) -> None:
    graph = tmp_path / "graph.json"
    tuple_output("scripted").run(graph=graph).ok()
    result = run_process(["env", f"GRAPH={graph}", f"FOLDER={tmp_path}", PROGRAMS / "cpp_alone", case]).ok()
    assert result.stdout == "all as it must be\n"


def test_the_binding_and_the_adapter_have_the_same_dtypes() -> None:
    """The table of the adapter is compared with the core's by a Rust test."""
    adapter = (ROOT / "src/torch/adapter/dlpack_abi.h").read_text("utf-8")
    rows = re.findall(r'^  X\((\w+), \w+, "\w+", (\d+), (\d+)\)', adapter, re.M)
    binding = re.findall(r"\{(\d+), (\d+), at::k(\w+)\}", (BINDING / "graphpatch/value.hpp").read_text("utf-8"))
    assert rows and sorted(rows) == sorted((name, code, bits) for code, bits, name in binding)


def compiles(source: Path, standard: str, *flags: Any) -> None:
    done = subprocess.run(
        [
            "c++",
            f"-std={standard}",
            "-Wall",
            "-Wextra",
            "-pedantic",
            "-Werror",
            "-fsyntax-only",
            *INCLUDE,
            *flags,
            source,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


STANDARDS = ["c++17", "c++20"]
WITH_LIBTORCH = [(True, standard) for standard in STANDARDS if standard >= STANDARD]


@pytest.mark.parametrize("torchs, standard", [*((False, standard) for standard in STANDARDS), *WITH_LIBTORCH])
def test_headers_compile_alone_and_twice(torchs: bool, standard: str, tmp_path: Path) -> None:
    source = tmp_path / "twice.cpp"
    source.write_text(
        "#include <graphpatch.hpp>\n#include <graphpatch.hpp>\n"
        f'static_assert(GRAPHPATCH_TORCH == {int(torchs)}, "what was asked for");\n'
        "int main() { return graphpatch::version().empty(); }\n"
    )
    compiles(source, standard, *([flag for flag in TORCH if "std=" not in flag] if torchs else []))


def test_each_header_compiles_first(tmp_path: Path) -> None:
    """Those without libtorch; the others include one another in the order of the one above."""
    source = tmp_path / "each.cpp"
    for header in ["config", "error", "array", "graph", "value", "spec", "patch", "session"]:
        source.write_text(f"#include <graphpatch/{header}.hpp>\nint main() {{}}\n")
        compiles(source, "c++17", "-DGRAPHPATCH_TORCH=0")


def test_snippets_of_the_readme_compile(tmp_path: Path) -> None:
    text = (ROOT / "docs/reference/cpp.md").read_text(encoding="utf-8")
    snippets = re.findall(r"^```cpp\n(.*?)^```", text, flags=re.M | re.S)
    declarations = [code for code in snippets if code.startswith(("struct", "template"))]
    bodies = [code for code in snippets if code not in declarations]
    assert len(declarations) >= 2 and len(bodies) >= 4
    source = tmp_path / "snippets.cpp"
    source.write_text(
        "#include <graphpatch.hpp>\n#include <torch/nn.h>\n#include <iostream>\n"
        + "".join(declarations)
        + "void use(Mlp model, torch::Tensor x, torch::nn::Linear linear, torch::nn::Sequential sequential) {\n"
        "graphpatch::Session session;\n" + "".join(f"{{\n{code}}}\n" for code in bodies) + "}\n"
    )
    compiles(source, STANDARD, *[flag for flag in TORCH if "std=" not in flag], "-Wno-unused")


# --- one model in three hosts ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Any]]:
    """By host: the transformer's tree and results (bare, without head 1 of layer 0, with the other's layer 1)."""
    folder = tmp_path_factory.mktemp("hosts")
    torch.manual_seed(0)
    model, ids = Gpt().eval(), torch.randint(50, (2, 8))
    torch.save(state(model, ids), folder / "state.pt")
    cpp = run_process([PROGRAMS / "cpp_transformer", folder / "state.pt", folder / "out.pt"]).ok()
    assert "other's: yes\n" in cpp.stderr and "as before: yes\n" in cpp.stderr
    found = {"C++": (tree_in(cpp.stdout), torch.load(folder / "out.pt"))}

    script = save(model, (ids,), folder / "script")
    matmul = "layers_0.attn.matmul_1[:, 1]=zero"
    bare = script.run()
    found["TorchScript"] = (bare.tree, [bare.output, script.run(patches=[matmul], tree=False).output])

    eager = folder / "eager.py"
    eager.write_text(f"""
import sys
sys.path[:0] = [{str(ROOT / "bindings" / "python")!r}, {str(ROOT / "tests" / "helpers")!r}]
import torch
from cpp_models import Gpt
from libgraphpatch import PatchableGraph, ZeroPatch
weights, ids = torch.load({str(folder / "state.pt")!r})
model = Gpt().eval()
model.load_state_dict(weights, strict=False)
torch.set_num_threads(1)
with torch.no_grad():
    pg = PatchableGraph(model, ids)
    print(repr(pg.graph))
    bare = pg(ids)
    with pg.patch({{"layers_0.attn.matmul_1": ZeroPatch(slice=(slice(None), 1))}}):
        torch.save([bare, pg(ids)], {str(folder / "eager.pt")!r})
""")
    python = run_process([sys.executable, eager]).ok()
    found["Python"] = (tree_in(python.stdout), torch.load(folder / "eager.pt"))
    return found


def scopes(tree: str) -> dict[str, list[tuple[str, str]]]:
    """The nodes directly in each scope, in order, by the scope's path."""
    found: dict[str, list[tuple[str, str]]] = {"": []}
    for path, kind in nodes(tree):
        if "|" in path:
            continue
        outer, _, name = path.rpartition(".")
        found[outer].append((name, kind))
        if kind.startswith("Graph("):
            found[path] = []
    return found


def module_at(model: torch.nn.Module, path: str) -> str:
    """The class of a module by its node's path."""
    for part in path.split("."):
        names = {re.sub(r"^(\d)", r"sub_\1", name.replace(".", "_")): below for name, below in model.named_modules()}
        model = names[part]
    return type(model).__name__ + (" without bias" if getattr(model, "bias", 0) is None else "")


def differences(tree: str, other: str) -> list[str]:
    """The nodes that scopes of only one of two trees have, as lines of a table, by the class of the module."""
    ours, theirs = scopes(tree), scopes(other)
    assert list(ours) == list(theirs), "the same modules are called in the same order"
    found = []

    def rest(nodes: list[tuple[str, str]], of: list[tuple[str, str]]) -> str:
        return ", ".join(f"`{name}`" for name, _ in nodes if name not in {known for known, _ in of}) or "nothing"

    model = Gpt()
    for path in ours:
        mine = [(name, "Graph" if kind.startswith("Graph(") else kind) for name, kind in ours[path]]
        other_ones = [(name, "Graph" if kind.startswith("Graph(") else kind) for name, kind in theirs[path]]
        if mine == other_ones:
            continue
        named = module_at(model, path) if path else "Gpt"
        shared = {name for name, _ in mine} & {name for name, _ in other_ones}
        assert {n: k for n, k in mine if n in shared} == {n: k for n, k in other_ones if n in shared}, "shapes agree"
        line = f"| `{named}` | {rest(other_ones, mine)} | {rest(mine, other_ones)} |"
        if line not in found:
            found.append(line)
    return found


@pytest.mark.parametrize("host", ["Python", "TorchScript"])
def test_the_tree_is_that_of_other_hosts_but_for_what_the_readme_lists(
    hosts: dict[str, tuple[str, Any]], host: str
) -> None:
    text = (ROOT / "docs/reference/cpp.md").read_text(encoding="utf-8")
    listed = re.findall(
        r"^\| `.*\|$", text.partition("<!-- differences -->")[2].partition("<!-- end -->")[0], flags=re.M
    )
    assert differences(hosts["C++"][0], hosts[host][0]) == listed, "docs/reference/cpp.md is stale"


@pytest.mark.parametrize("host", ["Python", "TorchScript"])
def test_patched_results_are_those_of_other_hosts(hosts: dict[str, tuple[str, Any]], host: str) -> None:
    bare, without_head, swapped = hosts["C++"][1]
    # Not compared bit for bit, because C++ adds the bias after the product.
    for ours, theirs in zip([bare, without_head], hosts[host][1]):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(bare, without_head, atol=1e-3) and torch.equal(swapped, bare.flip(0))
