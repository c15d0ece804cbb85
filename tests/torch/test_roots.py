"""A path may name its root, as is needed in a program that calls two models with the same path."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.torch import load_file

from served import Client, Served
from support import GRAPHPATCH, TIMEOUT, Result, graphpatch, run_process, wait_until

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
    # A root's name is completed, too, where there are several.
    names = ["Decoder.forward:", "Decoder.forward#2:"]
    assert graphpatch("complete", graph, "Deco").ok().stdout.splitlines() == names
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
            for number in range(1, len(client.ask(do="counts")["patches"]) + 1):
                client.ask(do="off", number=number)
            before = len(client.ask(do="counts")["patches"])
            assert any("fc.output is in 3 roots" in note for note in client.ask(do="notes")["notes"])
            # The tree of a part is that of the root that the path names, or of all roots that have it.
            names = lambda path: [root["name"] for root in client.ask(do="tree", path=path)["roots"]]
            assert names("Decoder:fc") == ["Decoder.forward"] and names("Decoder.forward#2:fc") == ["Decoder.forward#2"]
            assert len(names("fc")) == 3
            assert names("Encoder:") == ["Encoder.forward"]
            assert "no root is called `Coder`" in client.ask(do="tree", path="Coder:fc")["error"]
            assert "no node `absent`" in client.ask(do="tree", path="Decoder:fc.absent")["error"]
            # So is it with a value that is watched.
            watch = [GRAPHPATCH, "live", "watch", "--times", "1", "--json"]
            for path, value, told in [("Encoder:output", 3, ""), ("fc.weight", 1, "fc.weight is in 3 roots")]:
                watching = subprocess.Popen(
                    [*watch, path], env=served.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
                )
                wait_until(lambda: len(client.ask(do="counts")["patches"]) > before, "the probe")
                assert served.tell("run")
                line, said = watching.communicate(timeout=TIMEOUT)
                assert (
                    json.loads(line)["statistics"]["max"] == value and told in said and bool(told) == ("roots" in said)
                )
            client.close()
        finally:
            served.process.kill()
            served.process.communicate()


def test_values_of_two_roots_are_compared_one_by_one(tmp_path):
    """A probe keeps the last value. Here the first root's values part, and those of the last do not."""
    for value in ("1", "2"):
        script = SCRIPT.replace("x = torch.ones", f"nn.init.constant_(encoder.fc.weight, {value})\nx = torch.ones")
        (tmp_path / f"{value}.py").write_text(script)
    one, other = ([sys.executable, tmp_path / f"{value}.py"] for value in ("1", "2"))
    for nodes in ([], ["--nodes", "fc.output"], ["--nodes", "Encoder:**"]):
        done = run_process([GRAPHPATCH, "bisect", *nodes, "--", *one, "--against", "--", *other])
        assert done.code == 1 and done.stdout.startswith("Encoder"), (nodes, done.stdout, done.stderr)
    done = run_process([GRAPHPATCH, "bisect", "--nodes", "Decoder:**", "--", *one, "--against", "--", *other])
    assert done.code == 0


def test_a_sweep_says_that_a_node_is_in_several_roots(tmp_path):
    def sweep(node: str) -> str:
        (tmp_path / "script.py").write_text(SCRIPT)
        asked = ["--nodes", node, "--metric", r"regex:^\[\[(\S+),", "-o", tmp_path / "sweep.csv", "--restart"]
        (tmp_path / "sweep.csv").unlink(missing_ok=True)
        return run_process([GRAPHPATCH, "sweep", *asked, "--", sys.executable, tmp_path / "script.py"]).ok().stderr

    assert "fc.output is in 3 roots (Encoder.forward, Decoder.forward" in sweep("fc.output")
    assert "roots" not in sweep("Decoder:fc.output")


def test_diff_means_the_values_of_one_root(tmp_path):
    graph, kept = tmp_path / "g.json", [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    probes = ["--probe", "Encoder:fc.output", "--probe", "Decoder.forward:fc.output"]
    run(tmp_path, "--graph", graph, *probes, "--save", kept[0]).ok()
    run(tmp_path, *probes, "--patch", "fc.input=zero", "--save", kept[1]).ok()

    def compared(*nodes: str) -> list[str]:
        done = graphpatch("diff", graph, graph, "--values", *kept, *nodes)
        return [line.split()[1].rstrip(":") for line in done.stdout.splitlines()[1:]]

    encoder, decoder = "Encoder:fc.output", "Decoder.forward:fc.output"
    assert compared() == [encoder, decoder] and compared("--nodes", "fc.output") == [encoder, decoder]
    assert compared("--nodes", "Decoder:fc.output") == [decoder]
    assert compared("--nodes", "Encoder:**") == [encoder]
