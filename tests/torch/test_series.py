"""The short examples of C++ and C, built against the installed tree and run as a reader would."""

from pathlib import Path

import pytest
import torch

from installed import build, clean, good, run, tool
from support import ROOT, graphpatch

STEPS = ["01-tree", "02-patch", "03-plain"]


@pytest.fixture(scope="module")
def series(moved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built programs."""
    return build("series", "cmake", moved, tmp_path_factory.mktemp("series")).parent


def said(folder: Path, step: str, *args: Path) -> str:
    return good(run([folder / step, *args], env=clean(folder / "home", OMP_NUM_THREADS=1)))


def test_every_step_is_tried() -> None:
    assert [file.stem for file in sorted((ROOT / "bindings/cpp/examples/series").glob("*.cpp"))] == STEPS


def test_the_tree_is_saved_for_the_command_and_for_c(series: Path, moved: Path, tmp_path: Path) -> None:
    graph = tmp_path / "g.json"
    text = said(series, "01-tree", graph)
    tree = graphpatch("show", graph).ok().stdout
    assert text.startswith(tree) and "├─up: Graph(" in tree and "def forward(self, input):" in text

    flags = good(
        run(
            [tool("pkg-config"), "--cflags", "--libs", "graphpatch"],
            env=clean(tmp_path / "home", PKG_CONFIG_PATH=moved / "lib/pkgconfig"),
        )
    ).split()
    strict = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", f"-Wl,-rpath,{moved / 'lib'}"]
    sources = sorted((ROOT / "bindings/c/examples").glob("*.c"))
    assert [source.stem for source in sources] == ["01-graph", "02-patches"]
    for source, name in zip(sources, ["graph", "patches"], strict=True):
        good(run(["cc", source, "-o", tmp_path / name, *strict, *flags]))
    shown = good(run([tmp_path / "graph", graph, "*.addmm", "down.addmm"]))
    assert shown == f"{tree}\n*.addmm:\nup.addmm\ndown.addmm\n\na patch may stand at down.addmm\n"
    refused = run([tmp_path / "graph", graph, "*", "down.adm"])
    assert refused.returncode == 1 and "down.addmm" in refused.stderr
    assert run([tmp_path / "graph", tmp_path / "absent.json"]).returncode == 1

    printed = good(run([tmp_path / "patches", "relu", "[:, 3]"]))
    assert printed.startswith("[:, 3] picks 162 elements\napplied 0 times\n") and "relu[:, 3]=add:0.5\n" in printed
    refused = run([tmp_path / "patches", "relu", "[:, 30]"])
    assert refused.returncode == 1 and "index 30 is out of bounds for dimension 1" in refused.stderr


def test_patches_do_what_pytorch_computes(series: Path) -> None:
    lines = dict(line.rsplit(" ", 1) for line in said(series, "02-patch").splitlines()[:5] if "kept" not in line)
    torch.manual_seed(0)
    up, down = torch.nn.Linear(4, 16), torch.nn.Linear(16, 4)
    with torch.no_grad():
        hidden = torch.relu(up(torch.ones(2, 4)))
        bare = down(hidden).sum().item()
        without = down(hidden) + 0.5
        hidden[:, :8] = 0
        patched = down(hidden) + 0.5
    expected = {
        "bare": bare,
        "patched": patched.sum().item(),
        "without the zero": without.sum().item(),
        "bare again": bare,
    }
    assert {name: float(number) for name, number in lines.items()} == pytest.approx(expected, rel=1e-4)
    text = said(series, "02-patch")
    assert "kept [2, 16], 1 applied" in text and "nearest: relu" in text.split("refused: ")[1]


def test_a_program_without_modules(series: Path) -> None:
    text = said(series, "03-plain")
    assert text.startswith("<root>: Graph(") and "matmul" in text
    weight = torch.ones(3, 2, requires_grad=True)
    torch.tanh(torch.ones(1, 3).matmul(weight) * 0.5).sum().backward()
    assert weight.grad is not None
    assert float(text.splitlines()[-1].split()[1]) == pytest.approx(weight.grad[0, 0].item(), rel=1e-4)
