"""A path may name its root, as is needed in a program that calls two models with the same path."""

import sys
import tempfile
from pathlib import Path

from safetensors.torch import load_file

from served import Client, Served
from support import GRAPHPATCH, Result, graphpatch, run_process

SCRIPT = """\
import torch
from torch import nn


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2, bias=False)
        nn.init.ones_(self.fc.weight)

    def forward(self, x):
        return self.fc(x) + 1


class Decoder(Encoder):
    pass


encoder, decoder, second = Encoder(), Decoder(), Decoder()
x = torch.ones(1, 2)
print(encoder(x).tolist(), decoder(x).tolist(), second(x).tolist())
"""
BARE, ZEROED = "[[3.0, 3.0]]", "[[1.0, 1.0]]"


def run(tmp_path, *options) -> Result:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    return run_process([GRAPHPATCH, "run", *options, "--", sys.executable, script])


def test_a_path_without_a_root_holds_in_all_and_says_so(tmp_path):
    done = run(tmp_path, "--patch", "fc.output=zero").ok()
    assert done.stdout.strip() == " ".join([ZEROED] * 3)
    note = next(line for line in done.stderr.splitlines() if "roots" in line)
    assert "Encoder.forward, Decoder.forward" in note and "Encoder.forward:fc.output" in note


def test_a_root_is_named_whole_or_by_its_last_parts(tmp_path):
    for root, zeroed in [
        ("Decoder", [False, True, False]),
        ("Decoder.forward", [False, True, False]),
        ("Decoder.forward#2", [False, False, True]),
        ("Encoder", [True, False, False]),
    ]:
        done = run(tmp_path, "--patch", f"{root}:fc.output=zero").ok()
        assert done.stdout.strip() == " ".join(ZEROED if one else BARE for one in zeroed), root
        assert "roots" not in done.stderr


def test_a_root_that_is_not_there_never_matches(tmp_path):
    done = run(tmp_path, "--patch", "Decodor:fc.output=zero")
    assert done.stdout.strip() == " ".join([BARE] * 3)
    assert done.code == 3 and "never matched" in done.stderr


def test_every_place_that_takes_a_path_takes_a_root(tmp_path):
    graph, kept = tmp_path / "g.json", tmp_path / "kept.safetensors"
    run(tmp_path, "--graph", graph, "--probe", "Decoder:fc.output", "--save", kept).ok()
    tree = graphpatch("show", graph, "Encoder:fc").ok().stdout
    assert tree.startswith("fc: Graph(") and tree.count("fc: Graph(") == 1
    assert graphpatch("complete", graph, "Decoder:fc.o").ok().stdout == "Decoder:fc.output\n"
    assert graphpatch("check", graph, "--patch", "Decoder:fc.output=zero").ok().stderr == ""
    assert "is in 3 roots" in graphpatch("check", graph, "--patch", "fc.output=zero").ok().stderr
    wrong = graphpatch("check", graph, "--patch", "Coder:fc.output=zero")
    assert wrong.code == 2 and "no root is called `Coder`" in wrong.stderr and "Decoder.forward#2" in wrong.stderr
    values = load_file(kept)
    assert list(values) == ["Decoder:fc.output"] and values["Decoder:fc.output"].tolist() == [[2.0, 2.0]]


SERVED = (
    SCRIPT
    + """\
import sys
for line in sys.stdin:
    print(encoder(x).tolist(), decoder(x).tolist(), second(x).tolist(), flush=True)
"""
)


def test_live_control_says_that_a_path_is_in_several_roots():
    with tempfile.TemporaryDirectory(prefix="gp-") as folder:
        script = Path(folder) / "script.py"
        script.write_text(SERVED)
        served = Served([GRAPHPATCH, "run", "--live", "--", sys.executable, script], Path(folder))
        try:
            served.pid()
            assert served.tell("run")
            assert served.tell("run").split("\n")[0] == " ".join([BARE] * 3)
            client = Client(served)
            for request in [{"do": "patch", "patch": "fc.output=zero"}, {"do": "probe", "path": "fc.output"}]:
                told = client.ask(**request)
                assert told["note"].startswith("fc.output is in 3 roots (Encoder.forward, Decoder.forward")
            assert "note" not in client.ask(do="patch", patch="Decoder:fc.output=zero")
            assert any("fc.output is in 3 roots" in note for note in client.ask(do="notes")["notes"])
            client.close()
        finally:
            served.process.kill()
            served.process.communicate()
