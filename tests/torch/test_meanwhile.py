"""A run has the patches that held when it began, whatever others change until it ends: C++ and TorchScript, and programs that are
patched from outside."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from served import Client, Served
from support import GRAPHPATCH, PROGRAMS, ROOT, run_process

CASES = [
    "begun_meanwhile",
    "closed",
    "closed_first",
    "detached",
    "recorded",
    "removed",
    "removed_before_it_was_reached",
    "script_in_a_call_that_began_before",
    "script_in_a_declined_run",
    "script_root",
    "switched_off",
    "valued",
]
PROGRAM = PROGRAMS / "cpp_meanwhile"

_library = torch.library.Library("meanwhile", "DEF")
_library.define("gate(Tensor x) -> Tensor")


class Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x))


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = Part()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.meanwhile.gate(x * 2)
        return torch.exp(self.part(y)) + y


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("meanwhile") / "whole.pt"
    torch.jit.script(Whole()).save(str(file))
    return file


def test_every_case_is_run() -> None:
    listed = subprocess.run([PROGRAM], capture_output=True, text=True, check=True)
    assert sorted(listed.stdout.split()) == CASES


@pytest.mark.parametrize("case", CASES)
def test_case(case: str, model: Path) -> None:
    assert run_process([PROGRAM, case, model]).ok().stdout == "all as it must be\n"


# A server that holds a request at a gate: `begin` begins one and answers when it is there; `end` lets it go on.
SERVER = """
import sys, threading
import torch
from torch import nn
{before}
reached, opened = threading.Event(), threading.Event()
holds = False

class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
    def forward(self, x):
        return torch.tanh(self.linear(x))

class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.part, self.last = {made}(Part()), {made}(Part())
    def forward(self, x):
        global holds
        y = x * 2
        if holds:
            holds = False
            reached.set()
            opened.wait()
        return torch.exp(self.last(self.part(y))) + y

torch.manual_seed(0)
model, x, kept = Whole().eval(), torch.ones(2, 3), []
def run():
    with torch.no_grad():
        kept.append(model(x))
    return " ".join(value.hex() for value in kept[-1].double().flatten().tolist())
for line in sys.stdin:
    word = line.strip()
    if word == "begin":
        reached.clear(); opened.clear()
        holds, thread = True, threading.Thread(target=run)
        thread.start()
        reached.wait()
        print("held", flush=True)
    elif word == "end":
        opened.set(); thread.join()
        print(*(value.hex() for value in kept[-1].double().flatten().tolist()), flush=True)
    elif word == "listen":
        import libgraphpatch
        libgraphpatch.live()
        print("listens", flush=True)
    elif word == "replace":
        model.last = {made}(Part()).eval()
        print("replaced", flush=True)
    else:
        print(run(), flush=True)
"""
PATCHES = ["part.output=zero", "last.linear.weight=zero", "exp=replace:0.5", "output=add:1", "last.tanh=add:1"]


class Held(Served):
    def __init__(self, folder: Path, made: str, command: list[object] | None = None, before: str = "") -> None:
        script = folder / "server.py"
        script.write_text(SERVER.format(made=made, before=before))
        super().__init__(
            [*([GRAPHPATCH, "run", "--live", "--"] if command is None else command), sys.executable, script], folder
        )


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gp-") as name:
        yield Path(name)


@pytest.mark.parametrize("made", ["", "torch.jit.script"], ids=["eager", "scripted"])
def test_a_request_of_a_server_keeps_its_patches(made: str, folder: Path) -> None:
    served = Held(folder, made)
    client = Client(served)
    try:
        bare = served.run()
        for patch in PATCHES:
            number = client.ask(do="patch", patch=patch)["number"]
            patched = served.run()
            assert patched != bare, patch
            for change, back in [
                ({"do": "off", "number": number}, {"do": "on", "number": number}),
                ({"do": "recording", "on": True}, {"do": "recording", "on": False}),
                ({"do": "remove", "number": number}, None),
            ]:
                assert served.tell("begin") == "held\n"
                assert client.ask(**change)["ok"]
                expected = patched if change["do"] == "recording" else bare
                assert served.run() == expected, (patch, change)
                assert [float.fromhex(word) for word in served.tell("end").split()] == patched, (patch, change)
                if back:
                    assert client.ask(**back)["ok"]
            # A request that began without the patch has nothing of it.
            assert served.tell("begin") == "held\n"
            number = client.ask(do="patch", patch=patch)["number"]
            assert served.run() == patched
            assert [float.fromhex(word) for word in served.tell("end").split()] == bare, patch
            assert client.ask(do="remove", number=number)["ok"]
    finally:
        client.close()
        served.process.kill()
        served.process.communicate()


@pytest.mark.parametrize("made", ["", "torch.jit.script"], ids=["eager", "scripted"])
@pytest.mark.parametrize("ends", ["detach", "stop"])
def test_a_request_keeps_its_patches_when_live_control_ends(ends: str, made: str, folder: Path) -> None:
    served = Held(folder, made)
    client = Client(served)
    try:
        bare = served.run()
        for patch in ["part.linear.weight=zero", "part.output=add:1", "last.tanh[..., 0]=zero", "output=add:1"]:
            client.ask(do="patch", patch=patch)
        patched = served.run()
        assert served.tell("begin") == "held\n"
        assert client.ask(do=ends)["ok"]
        assert served.run() == bare
        assert [float.fromhex(word) for word in served.tell("end").split()] == patched
        assert served.run() == bare
    finally:
        client.close()
        served.process.kill()
        served.process.communicate()


def test_a_request_that_began_before_the_program_listens_has_no_part_that_is_a_root(folder: Path) -> None:
    package = str(ROOT / "bindings" / "python")
    served = Held(folder, "", [], before=f"sys.path.insert(0, {package!r})")
    try:
        bare = served.run()
        assert served.tell("begin") == "held\n"
        assert served.tell("listen") == "listens\n"
        client = Client(served)
        client.ask(do="patch", patch="output=zero")
        assert [float.fromhex(word) for word in served.tell("end").split()] == bare
        assert client.ask(do="counts")["patches"][0]["matched"] == 0
        assert served.run() == [0.0] * 6
        client.close()
    finally:
        served.process.kill()
        served.process.communicate()


def test_a_module_that_was_replaced_is_patched_in_the_first_run(folder: Path) -> None:
    served = Held(folder, "")
    client = Client(served)
    try:
        served.run()
        client.ask(do="remove", number=client.ask(do="patch", patch="exp=zero")["number"])
        client.ask(do="patch", patch="exp=zero")
        served.run()
        assert served.tell("replace") == "replaced\n"
        client.ask(do="patch", patch="last.linear.weight=zero")
        served.run()
        assert client.ask(do="counts")["patches"][-1]["applied"] == 1
    finally:
        client.close()
        served.process.kill()
        served.process.communicate()


DECLINED = """
import torch
from torch import nn

class Part(nn.Module):
    def forward(self, x):
        return torch.tanh(x) + 1

class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.part = torch.jit.script(Part())
    def forward(self, x):
        return self.part(x) * 2

model = Whole()
for _ in range(4):
    print(bool(model(torch.ones(2)).any()))
"""


def test_in_a_run_of_which_nothing_is_wanted_a_scripted_module_is_no_root(tmp_path: Path) -> None:
    script, patches = tmp_path / "script.py", tmp_path / "patches.toml"
    script.write_text(DECLINED)
    patches.write_text('[[patch]]\npath = "output"\nkind = "zero"\nruns = "1"\n')
    done = run_process([GRAPHPATCH, "run", "--patches", patches, "--", sys.executable, script]).ok()
    assert done.stdout.split() == ["True", "False", "True", "True"]
