"""The command as a person types it: programs without `--`, default file names, closing messages, and completions."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from support import ENVIRONMENT, GRAPHPATCH, ROOT, wait_until

SCRIPT = """
import sys
import torch
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
with torch.no_grad():
    print(model(torch.ones(1, 4)).tolist(), sys.argv[1:])
"""


def graphpatch(folder: Path, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [GRAPHPATCH, *arguments],
        cwd=folder,
        env={**ENVIRONMENT, "PATH": path, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("entry")
    (made / "s.py").write_text(SCRIPT)
    graphpatch(made, "run", "--graph", "g.json", "python", "s.py")
    return made


def test_a_program_needs_no_dashes_and_keeps_its_own_options(folder: Path) -> None:
    done = graphpatch(folder, "run", "--tree", "python", "s.py", "--tree", "--", "-x")
    assert "['--tree', '--', '-x']" in done.stdout and "├─sub_0: Graph(5)" in done.stderr
    assert (
        graphpatch(folder, "run", "--tree", "--", "python", "s.py").stderr
        == graphpatch(folder, "run", "--tree", "python", "s.py").stderr
    )
    refused = graphpatch(folder, "run", "--tre", "python", "s.py", code=2)
    assert "--tree" in refused.stderr


def test_files_without_a_name_have_that_of_the_program(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(SCRIPT)
    done = graphpatch(tmp_path, "run", "--record", "sub_0.output", "--save", "--graph", "--", "python", "s.py")
    (graph,), (values,) = list(tmp_path.glob("*.json")), list(tmp_path.glob("*.safetensors"))
    assert re.fullmatch(r"python\.\d+\.graph\.json", graph.name)
    assert values.name == graph.name.replace("graph.json", "safetensors")
    told = f"graphpatch: wrote {graph.name}, {values.name}; to see them: graphpatch view {graph.name} --values {values.name}\n"
    assert done.stderr == told
    torch.manual_seed(0)
    expected = torch.nn.Linear(4, 3)(torch.ones(1, 4))
    assert torch.equal(load_file(values)["sub_0.output#0"], expected)
    graphpatch(tmp_path, *told.split(": ")[2].split()[1:])
    assert graph.with_suffix(".html").read_text().startswith("<!doctype html>")


def test_a_file_that_was_not_written_is_not_told_of(tmp_path: Path) -> None:
    done = graphpatch(tmp_path, "run", "--graph", "g.json", "true", code=1)
    assert "wrote" not in done.stderr and not (tmp_path / "g.json").exists()
    done = graphpatch(tmp_path, "run", "--graph", "absent/g.json", "true", code=2)
    assert done.stderr == "graphpatch: absent/g.json: cannot be written: the folder absent is not there\n"


def test_a_page_without_a_name_lies_beside_its_graph(folder: Path) -> None:
    done = graphpatch(folder, "view", "g.json")
    assert done.stderr == "graphpatch: wrote g.html; open it in a browser\n"
    assert "sub_0" in (folder / "g.html").read_text()


def test_on_a_terminal_a_browser_opens_the_page(folder: Path, tmp_path: Path) -> None:
    """The terminal is a real one; the browser is a script that writes down what it is given."""
    browser, seen = tmp_path / "browser", tmp_path / "seen"
    browser.write_text(f'#!/bin/sh\necho "$1" >{seen}.part && mv {seen}.part {seen}\n')
    browser.chmod(0o755)
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [GRAPHPATCH, "view", "g.json"],
        cwd=folder,
        env={**ENVIRONMENT, "BROWSER": str(browser)},
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 0 and "a browser opens it" in done.stderr
    wait_until(seen.exists, "the browser")
    assert seen.read_text() == "g.html\n"


def test_version_and_help(folder: Path) -> None:
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M)
    assert version and graphpatch(folder, "-V").stdout == f"graphpatch {version[1]}\n"
    long = graphpatch(folder, "--version").stdout
    header = (ROOT / "include/graphpatch.h").read_text()
    (abi,) = re.findall(r"define GRAPHPATCH_ABI_VERSION (\d+)", header)
    assert "libtorch 2.4 to 2.15" in long and f"ABI      {abi}" in long
    short, long = graphpatch(folder, "run", "-h").stdout, graphpatch(folder, "run", "--help").stdout
    assert "Examples:" in long and "Examples:" not in short and len(short) < len(long)
    for heading in ["What to see:", "What to patch and keep:", "How:"]:
        assert heading in short


def completed(folder: Path, line: str) -> list[str]:
    """What bash offers for the last word of a line."""
    script = f"""
        source <({GRAPHPATCH} complete --shell bash)
        COMP_WORDS=({line}) COMP_CWORD=$(( $(set -- {line}; echo $#) - 1 ))
        COMP_LINE={line!r} COMP_POINT=${{#COMP_LINE}}
        COMP_WORDS[0]={GRAPHPATCH}
        _graphpatch_or_path {GRAPHPATCH} "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    return done.stdout.split()


def test_bash_completes_the_paths_of_a_graph(folder: Path) -> None:
    expected = graphpatch(folder, "complete", "g.json", "sub_0.").stdout.split()
    assert "sub_0.linear" in expected and completed(folder, "graphpatch show g.json sub_0.") == expected
    assert "--tree" in completed(folder, "graphpatch run --tr")


def test_check_knows_the_shape_of_a_value(folder: Path) -> None:
    import numpy

    numpy.save(folder / "v.npy", numpy.zeros(2, dtype="float32"))
    graphpatch(folder, "check", "g.json", "--patch", "sub_0.output[0, :2]=add:@v.npy")
    refused = graphpatch(folder, "check", "g.json", "--patch", "sub_0.output=add:@v.npy", code=2)
    assert "the value's shape (2) does not broadcast to (1, 3)" in refused.stderr
    # PyTorch refuses the same.
    with pytest.raises(RuntimeError):
        torch.zeros(1, 3).add_(torch.zeros(2))


def test_names_that_may_have_been_meant_stand_one_a_line(folder: Path) -> None:
    refused = graphpatch(folder, "check", "g.json", "--patch", "sub_0.outptu=zero", code=2)
    lines = refused.stderr.splitlines()
    assert lines[2] == "    nearest: sub_0.output" and len(lines) <= 7
    assert all(re.fullmatch(r" {13}\S+", line) for line in lines[3:])


def test_a_table_is_as_wide_as_the_terminal(folder: Path) -> None:
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    command = [GRAPHPATCH, "run", "--summary", "--patch", "sub_0.output[..., 0]=add:0.125", sys.executable, "s.py"]
    done = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 65536):
            said += piece
    except OSError:  # reading a terminal fails when no process has it open any more
        pass
    os.close(ours)
    assert done.wait() == 0
    lines = said.decode().splitlines()
    assert any("applied" in line for line in lines) and all(len(line) <= 60 for line in lines), lines
