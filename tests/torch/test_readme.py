"""The README's commands and programs do what it says."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from support import ENVIRONMENT, GRAPHPATCH, PROGRAMS, ROOT, TIMEOUT, Saved, run_process

NUMBER = re.compile(r"-?\d+(\.\d+)?,?$")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.M | re.S)


def commands(block: str) -> list[str]:
    """Its graphpatch commands, continuation lines joined, comments gone."""
    lines = block.replace("\\\n", " ").splitlines()
    return [
        line.removeprefix("$ ").split("  #")[0] for line in lines if line.removeprefix("$ ").startswith("graphpatch ")
    ]


def run(command: str, saved: Saved, model: str, folder: Path) -> subprocess.CompletedProcess:
    """Runs a command of the README, with the tests' own program in the place of `./infer`."""
    args = " ".join(shlex.quote(str(arg)) for arg in [*saved.args(), folder / "out.pt"])
    command = command.replace(f"./infer {model}", f"{PROGRAMS / 'runner'} {args}").replace(
        "./infer", str(PROGRAMS / "runner")
    )
    path = [str(GRAPHPATCH.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {**ENVIRONMENT, "PATH": os.pathsep.join(path)}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT
    )


def test_the_first_screen(tuple_output: Callable[[str], Saved], tmp_path: Path) -> None:
    block = blocks("console")[0]
    shown = [line for line in block.splitlines() if not line.startswith("$") and line != "…"]
    tree, patch = commands(block)
    done = run(tree, tuple_output("scripted"), "tuple_output.pt", tmp_path)
    assert done.returncode == 0 and done.stderr.splitlines()[: len(shown)] == shown
    done = run(patch, tuple_output("scripted"), "tuple_output.pt", tmp_path)
    assert done.returncode == 0 and "linear_1.output[0]=zero" in done.stderr


def test_the_plain_program(tmp_path: Path) -> None:
    block = next(block for block in blocks("console") if "--run-at" in block)
    shown = [line for line in block.splitlines() if not line.startswith("$") and line != "…"]
    tree, patch = (command.replace("./net", f"{PROGRAMS / 'flat'} nn out.pt 1") for command in commands(block))
    done = subprocess.run(
        [GRAPHPATCH, *shlex.split(tree)[1:]], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stderr.splitlines()[: len(shown)] == shown, done.stderr
    done = subprocess.run(
        [GRAPHPATCH, *shlex.split(patch)[1:]], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "blocks_0_fc.weight[0]=zero" in done.stderr, done.stderr


def numbers(text: str) -> tuple[str, list[float]]:
    """A heat map's words without its shades, and its numbers."""
    words = [word for word in text.split() if word not in "░▒▓█"]
    return " ".join(word for word in words if not NUMBER.match(word)), [
        float(word.rstrip(",")) for word in words if NUMBER.match(word)
    ]


def test_the_sweep(tmp_path: Path) -> None:
    """The heat map is that of the demo's encoder."""
    run_process([sys.executable, ROOT / "tests/demo/export_encoder.py", tmp_path]).ok()
    block = next(block for block in blocks("console") if "graphpatch sweep" in block)
    (command,) = commands(block)
    shown = block.split("tokens.txt\n")[1]
    command = command.replace("graphpatch", str(GRAPHPATCH), 1).replace("./infer", str(PROGRAMS / "infer"))
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (words, ours), (same_words, theirs) = numbers(done.stdout), numbers(shown)
    assert words == same_words and ours == pytest.approx(theirs, rel=0.02), done.stdout


def test_every_command(transformer: Callable[[str], Saved], tmp_path: Path) -> None:
    listed = [command for block in blocks("sh") for command in commands(block)]
    assert len(listed) >= 8
    (tmp_path / "script.py").write_text("import torch\nprint(torch.nn.Linear(2, 3)(torch.ones(1, 2)).shape)\n")
    for command in listed:
        done = run(command, transformer("scripted"), "model.pt", tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        written = re.search(r"(?:--graph|--save|-o) (\S+)", command)
        assert not written or (tmp_path / written[1]).stat().st_size > 0, command
        # Where all is well these two say nothing.
        assert done.stdout or done.stderr or written or re.match("graphpatch (check|diff)", command), command


def test_the_patch_file(transformer: Callable[[str], Saved], tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(blocks("toml")[0])
    command = "graphpatch run --patches p.toml --save kept.safetensors --summary -- ./infer model.pt"
    done = run(command, transformer("scripted"), "model.pt", tmp_path)
    assert done.returncode == 0 and "runs 0..4" in done.stderr, done.stderr
    assert list(load_file(tmp_path / "kept.safetensors")) == ["layers_1.attn.chunk|sub_1#0"]


def test_the_c_snippet_is_the_c_program() -> None:
    """Each call of the README's C block stands in the tested program."""
    program = (ROOT / "tests/programs/c/session.c").read_text(encoding="utf-8")
    calls = re.findall(r"gp_\w+(?=\()", blocks("c")[0])
    assert len(calls) >= 6 and all(f"{call}(" in program for call in calls)


def test_the_cpp_snippet_is_compiled() -> None:
    """It stands in the binding's page, whose snippets test_cpp.py compiles."""
    assert blocks("cpp")[0] in (ROOT / "bindings/cpp/README.md").read_text(encoding="utf-8")


def test_the_make_targets_exist() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in set(re.findall(r"make ([a-z-]+)", README)):
        assert f"make {target} " in listed, target
