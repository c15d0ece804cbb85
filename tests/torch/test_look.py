"""Saved graphs of each host: a GPT-2 in Python, the sentence encoder in TorchScript, a C++ program. Loaded, shown,
completed, searched and compared; and what a person sees at a terminal."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import ENVIRONMENT, GRAPHPATCH, PROGRAMS, ROOT, TIMEOUT, graphpatch, run_process

GPT2 = """\
import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.manual_seed(0)
config = GPT2Config(n_layer=3, n_embd=16, n_head=2, vocab_size=50, n_positions=16, attn_implementation="eager")
with torch.no_grad():
    GPT2LMHeadModel(config).eval()(torch.arange(5).unsqueeze(0))
"""


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved graph of each host; of the encoder a second one, with a patch in it, and probed values of both."""
    folder = tmp_path_factory.mktemp("graphs")
    files = {name: folder / f"{name}.json" for name in ("gpt2", "encoder", "patched", "cpp")}
    (folder / "gpt2.py").write_text(GPT2)
    graphpatch("run", "--graph", files["gpt2"], "--", sys.executable, folder / "gpt2.py").ok()
    run_process([sys.executable, ROOT / "tests/demo/export_encoder.py", folder]).ok()
    infer = [PROGRAMS / "infer", folder / "encoder.pt", folder / "tokens.txt"]
    for name, patch in (("encoder", []), ("patched", ["--patch", "bert.encoder.layer_2.output=zero"])):
        graphpatch(
            "run",
            "--graph",
            files[name],
            "--probe",
            "bert.encoder.layer_1.output",
            "--probe",
            "output",
            *patch,
            "--save",
            folder / f"{name}.safetensors",
            "--",
            *infer,
        ).ok()
    run_process([PROGRAMS / "tuple", files["cpp"]]).ok()
    return files


WHERE = {
    "gpt2": (
        "transformer.h_1.mlp",
        r'modeling_gpt2\.py", line \d+, in forward\n    feed_forward_hidden_states = self\.mlp',
    ),
    "encoder": ("bert.encoder.layer_1.attention", r'File "code/__torch__/transformers/.*\.py", line \d+, in forward'),
    "cpp": ("linear_1", r'tuple\.cpp", line \d+, in net::TupleOutput::forward\n    auto second = linear\(x \+ 1\);'),
}


@pytest.mark.parametrize("host", WHERE)
def test_saved_graphs_are_looked_at(graphs: dict[str, Path], host: str) -> None:
    file, (scope, source) = graphs[host], WHERE[host]
    tree = graphpatch("show", file).ok().stdout
    assert tree.startswith("<root>: Graph(") and "\x1b" not in tree
    top = graphpatch("show", file, scope).ok().stdout.splitlines()
    assert top[0].startswith(f"{scope.rsplit('.', 1)[-1]}: Graph(")
    names = [line[2:].split(":")[0] for line in top[1:] if line[:2] in ("├─", "└─")]
    assert graphpatch("complete", file, f"{scope}.").ok().stdout.splitlines() == [f"{scope}.{name}" for name in names]
    code = graphpatch("show", file, scope, "--code").ok().stdout
    assert re.search(source, code.split("Compiled code:\n")[0]), code
    called = [line.split(" = ")[0].strip() for line in code.split("Compiled code:\n")[1].splitlines() if " = " in line]
    inputs = re.search(r"def forward\(self(.*)\):", code)
    assert inputs and set(names) == {*called, *filter(None, inputs[1].split(", ")), "output"}
    hits = graphpatch("show", file, "--find", f"{scope}.output").ok().stdout.splitlines()
    assert any(hit.startswith(f"{scope}.output: Tensor(") for hit in hits), hits
    assert graphpatch("diff", file, file, "--code").ok().stdout == ""


def test_no_node_of_a_real_model_lacks_its_code(graphs: dict[str, Path]) -> None:
    """Each operation says where it was called, in each host."""
    for host in WHERE:
        for line in graphpatch("show", graphs[host], "--find", "aten::").ok().stdout.splitlines()[:40]:
            code = graphpatch("show", graphs[host], line.split(":")[0], "--code").ok().stdout
            assert re.match(r'File ".+"(, line \d+)?, in ', code) and "?" not in code.split("\n")[0].replace(
                str(ROOT), ""
            ), (host, line, code)


def test_runs_are_compared(graphs: dict[str, Path]) -> None:
    files = [graphs["encoder"], graphs["patched"]]
    values = ["--values", *(file.with_suffix(".safetensors") for file in files)]
    same = graphpatch("diff", *files)
    assert (same.code, same.stdout) == (0, "")
    result = graphpatch("diff", *files, *values)
    assert result.code == 1
    # Values before the patch are the same bit for bit, so that only the output differs.
    lines = result.stdout.splitlines()
    assert lines[0] == "# values" and len(lines) == 2 and lines[1].startswith("~ output: ")
    assert re.search(r"\d+ different, max abs \S+, max rel \S+, norm \S+, first at \[0, 0, 0\]", lines[1]), lines[1]


def at_terminal(*args: object, **environment: str) -> str:
    """What the command writes to a terminal."""
    outer, inner = pty.openpty()
    process = subprocess.Popen(
        [str(arg) for arg in [GRAPHPATCH, *args]],
        stdout=inner,
        stderr=inner,
        env={**ENVIRONMENT, "TERM": "xterm", **environment},
    )
    os.close(inner)
    pieces: list[bytes] = []
    while True:
        try:
            piece = os.read(outer, 65536)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(outer)
    assert process.wait(timeout=TIMEOUT) == 0
    return b"".join(pieces).decode().replace("\r\n", "\n")


@pytest.mark.parametrize("ci", [None, "true"])
def test_at_a_terminal(graphs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, ci: str | None) -> None:
    for name in ("NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"):
        monkeypatch.delitem(ENVIRONMENT, name, raising=False)
    if ci:
        monkeypatch.setitem(ENVIRONMENT, "CI", ci)
    file = graphs["gpt2"]
    plain = graphpatch("show", file).ok().stdout
    folded = graphpatch("show", file, "--fold").ok().stdout
    assert "h_1 … h_2: same as h_0" in folded and "same as" not in plain
    seen = at_terminal("show", file)
    assert "\x1b[" in seen and re.sub(r"\x1b\[[0-9;]*m", "", seen) == folded
    assert at_terminal("show", file, NO_COLOR="1") == folded
    assert at_terminal("show", file, TERM="dumb") == folded
    assert at_terminal("show", file, "--all", "--color", "never") == plain
