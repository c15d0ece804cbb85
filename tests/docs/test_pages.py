"""Every command and program of README.md and docs/ does what the page says, in a copy of the folder that `make demo` makes.

A block is what its first words say: `console` and `sh` are run by bash, line by line; one whose first line is a comment with the
name of a file (`// net.cpp`) is written to that file, for the commands that follow. In a `console` block the lines below a command
are what it shows, in this order; `…` stands for what is left out. A comment `exit code N` behind a command says how it ends,
without one it is 0. `sh checkout` has commands of the checkout, which test_links.py looks at.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from support import ENVIRONMENT, GRAPHPATCH, ROOT

# Those whose snippets have a test of their own: test_moving.py, test_interventions.py, test_readme.py (Python), test_cpp.py.
OTHERS = [
    "moving.md",
    "agreement.md",
    "interventions.md",
    "house.md",
    "reference/python.md",
    "reference/cpp.md",
    "reference/c.md",
]
PAGES = [ROOT / "README.md"] + [
    page for page in sorted((ROOT / "docs").rglob("*.md")) if str(page.relative_to(ROOT / "docs")) not in OTHERS
]


class Block(NamedTuple):
    kind: str
    text: str


class Step(NamedTuple):
    command: str
    shown: list[str]
    code: int


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in re.findall(r"^```([^\n]*)\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)]


def steps(block: Block) -> list[Step]:
    """The commands of a block, continuation lines joined."""
    found: list[Step] = []
    for line in block.text.replace("\\\n", " ").splitlines():
        command = line.removeprefix("$ ") if block.kind == "console" and line.startswith("$ ") else None
        if block.kind == "sh" and line.strip() and not line.startswith("#"):
            command = line
        if command is not None:
            code = re.search(r"  # .*exit code (\d+)", command)
            found.append(Step(command.split("  # ")[0].rstrip(), [], int(code[1]) if code else 0))
        elif block.kind == "console":
            found[-1].shown.append(line)
    return found


def runs(page: Path) -> bool:
    return any(block.kind in ("sh", "console") for block in blocks(page))


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `make demo`."""
    made = subprocess.run(
        [ROOT / "tests/demo/demo.sh"],
        env={**os.environ, "GRAPHPATCH_PYTHON": sys.executable, "GRAPHPATCH": str(GRAPHPATCH)},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    # In a fresh checkout the program is compiled first, which adds a line to the output.
    lines = [
        line for line in (made.stdout + made.stderr).splitlines() if not line.startswith(("make", "demo: compiling "))
    ]
    assert len(lines) <= 25, lines
    return ROOT / "build/demo"


@pytest.mark.parametrize("page", list(filter(runs, PAGES)), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_does_what_it_says(page: Path, demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "build/demo"
    shutil.copytree(demo, folder, symlinks=True, ignore=shutil.ignore_patterns("bin", "encoder.pt"))
    os.link(demo / "encoder.pt", folder / "encoder.pt")
    path = [str(GRAPHPATCH.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {
        **ENVIRONMENT,
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": str(ROOT / "bindings/python"),
        "GRAPHPATCH_LIBRARY": str(GRAPHPATCH.with_name("libgraphpatch.so")),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    for block in blocks(page):
        named = re.match(r"(?://|#) ([\w.]+)\n", block.text)
        if named and block.kind not in ("sh", "console"):
            (folder / named[1]).write_text(block.text, "utf-8")
        for step in steps(block) if block.kind in ("sh", "console") else []:
            if step.command.startswith(("cd build/demo", "export PATH=")):
                continue
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", f"{{ {step.command}\n}} 2>&1"],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert done.returncode == step.code, f"{step.command}\n{done.stdout}"
            shown_in_order(step, done.stdout)


def shown_in_order(step: Step, output: str) -> None:
    lines = iter(output.splitlines())
    for wanted in step.shown:
        if wanted != "…":
            found = any(alike(wanted, line) for line in lines)
            assert found, f"{step.command}\nmisses {wanted!r}; it says\n{output}"


def alike(wanted: str, line: str) -> bool:
    """Word by word, but for the shades of a heat map; numbers by 2 %, as another machine's arithmetic may differ a little."""
    shown, said = ([word.rstrip(",") for word in text.split() if word not in "░▒▓█"] for text in (wanted, line))
    if shown and shown[-1].endswith("…"):
        said = (
            [*said[: len(shown) - 1], said[len(shown) - 1][: len(shown[-1]) - 1] + "…"]
            if len(said) >= len(shown)
            else []
        )
    return len(shown) == len(said) and all(map(equal, shown, said))


def equal(wanted: str, word: str) -> bool:
    try:
        return float(word) == pytest.approx(float(wanted), rel=0.02)
    except ValueError:
        return wanted == word


def test_all_blocks_have_a_meaning() -> None:
    """No block is passed over because its first word is mistyped."""
    known = {"sh", "console", "sh checkout", "text", "toml", "json", "mermaid", "python", "cpp", "c"}
    for page in PAGES:
        for block in blocks(page):
            assert block.kind in known, f"{page}: {block.kind}"
            if block.kind in ("python", "cpp", "c"):
                name = re.match(r"(?://|#) ([\w.]+)\n", block.text)
                assert name, f"{page}: a program without a name:\n{block.text}"
                used = [step.command for other in blocks(page) for step in steps(other) if other.kind != "text"]
                assert any(name[1] in command for command in used), f"{page}: nothing runs {name[1]}"
