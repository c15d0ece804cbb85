"""Live control: programs that run a model on request are inspected and patched from outside while they run."""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models import TUPLE_OUTPUT_TREE
from served import Client, Served, expected
from support import ENVIRONMENT, GRAPHPATCH, PROGRAMS, ROOT, TIMEOUT, Saved, wait_until

# A Python program that does the same as `build/served`.
SCRIPT = """
import sys, torch
sys.path.insert(0, {helpers!r})
from models import TupleOutputModule
{before}
model = TupleOutputModule().eval()
model.load_state_dict(torch.jit.load(sys.argv[1]).state_dict())
inputs = torch.load(sys.argv[2])
for line in sys.stdin:
    with torch.no_grad():
        print(*(float(x).hex() for output in model(*inputs) for x in output.double().flatten()), flush=True)
sys.exit(7)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name, because the path of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="gp-") as name:
        yield Path(name)


@pytest.fixture
def start(folder: Path, tuple_output: Callable[[str], Saved]) -> Iterator[Callable[..., Served]]:
    started = []

    def begin(language: str, *before: Any, script: str = "") -> Served:
        file = folder / "served.py"
        file.write_text(SCRIPT.format(helpers=str(ROOT / "tests/helpers"), before=script))
        program = [PROGRAMS / "served"] if language == "cpp" else [sys.executable, file]
        started.append(Served([*before, *program, *tuple_output("scripted").args()], folder))
        return started[-1]

    yield begin
    for served in started:
        served.process.kill()
        served.process.communicate()


LIVE = (GRAPHPATCH, "run", "--live", "--")


@pytest.mark.parametrize("language", ["cpp", "python"])
def test_a_running_program_is_patched(
    language: str, start: Callable[..., Served], tuple_output: Callable[[str], Saved], folder: Path
) -> None:
    bare, patched, first = expected(tuple_output("scripted"))
    served = start(language, *LIVE)
    pid = served.pid()
    # No run was recorded yet, so `live tree` records the next one and then ends recording.
    tree = subprocess.Popen([GRAPHPATCH, "live", "tree"], env=served.environment, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: served.listening()[0]["recording"], "the tree's recording")
    assert served.run() == bare
    assert tree.communicate(timeout=TIMEOUT)[0] == TUPLE_OUTPUT_TREE
    wait_until(lambda: not served.listening()[0]["recording"], "the end of recording")
    assert served.run() == bare

    number = served.live(pid, "patch", "linear.output[..., 0]=zero").strip()
    assert served.run() == patched
    served.live("off", number)
    assert "(off)" in served.live("counts") and served.run() == bare
    served.live("on", number)
    assert served.run() == patched
    (counts,) = json.loads(served.live("counts", "--json"))["patches"]
    assert (counts["matched"], counts["applied"], counts["failed"], counts["on"]) == (2, 2, 0, True)
    served.live("remove", number)

    probe = served.live("probe", "linear.output").strip()
    assert "no run has come by" in served.live("value", probe, code=2)
    assert served.run() == bare
    value = json.loads(served.live("value", probe, "--elements", "4", "--json"))
    assert value["shape"] == list(first.shape) and value["dtype"] == "float32"
    assert value["elements"] == first.double().flatten().tolist()[:4]
    found = value["statistics"]
    assert (found["min"], found["max"], found["nan"], found["inf"]) == (first.min(), first.max(), 0, 0)
    assert found["norm"] == pytest.approx(first.norm().item(), rel=1e-6)
    served.live("save", folder / "kept.safetensors")
    assert torch.equal(load_file(folder / "kept.safetensors")["linear.output"], first)

    wrong = served.live("patch", "linear.outputs=zero", code=2)
    assert "linear.output" in wrong
    assert "no patch number 99" in served.live("off", 99, code=2)
    assert served.end() == ("", "", 7)
    assert list(served.folder.iterdir()) == []


def test_watch_shows_each_value(start: Callable[..., Served]) -> None:
    served = start("cpp", *LIVE)
    served.pid()
    command = [GRAPHPATCH, "live", "watch", "linear.output", "--times", "2"]
    watch = subprocess.Popen(command, env=served.environment, stdout=subprocess.PIPE, text=True)
    assert watch.stdout
    wait_until(lambda: "linear.output=probe" in served.live("counts"), "the watch's probe")
    lines = []
    for _ in range(2):
        served.run()
        lines.append(watch.stdout.readline().split())
    assert [line[:5] for line in lines] == [["1", "nan", "0", "inf", "0"], ["2", "nan", "0", "inf", "0"]]
    assert watch.wait(TIMEOUT) == 0
    wait_until(lambda: served.live("counts") == "", "the probe's end")


def test_two_clients_and_lines_that_are_no_requests(
    start: Callable[..., Served], tuple_output: Callable[[str], Saved]
) -> None:
    bare, patched, _ = expected(tuple_output("scripted"))
    served = start("cpp", *LIVE)
    one, two = Client(served), Client(served)
    number = one.ask(do="patch", patch="linear.output[..., 0]=zero", id="mine")
    assert number == {"ok": True, "number": number["number"], "id": "mine"}
    assert [patch["number"] for patch in two.ask(do="counts")["patches"]] == [number["number"]]
    assert served.run() == patched
    assert two.ask(do="off", number=number["number"]) == {"ok": True}
    assert served.run() == bare
    for line in [b"{\n", b"7\n", b"\xff\n", b'{"do": "fly"}\n', b'{"do": "off"}\n', b'{"do": "counts", "more": 1}\n']:
        answer = two.send(line)
        assert answer["ok"] is False and answer["error"], line
    # Requests that arrive together are answered in order.
    one.socket.sendall(b'{"do":"hello","id":1}\n{"do":"notes","id":2}\n')
    assert [json.loads(one.lines.readline())["id"] for _ in range(2)] == [1, 2]
    # If a client disconnects in the middle of a line, the patches that it holds are removed.
    held = two.ask(do="patch", patch="linear.output[..., 0]=zero", hold=True)["number"]
    assert served.run() == patched
    two.socket.sendall(b'{"do": "cou')
    two.close()
    wait_until(lambda: held not in [each["number"] for each in one.ask(do="counts")["patches"]], "the patch's end")
    assert served.run() == bare
    # A line without an end is refused, and nobody else is kept waiting.
    three = Client(served)
    assert "more than" in three.send(b"x" * (1 << 20) + b"y" * 4096)["error"]
    # It has sent more than was read, which the system calls a reset.
    with contextlib.suppress(ConnectionResetError):
        assert three.lines.readline() == ""
    assert one.ask(do="on", number=number["number"]) == {"ok": True}
    assert served.run() == patched
    assert one.ask(do="stop") == {"ok": True} and one.lines.readline() == ""
    wait_until(lambda: list(served.folder.iterdir()) == [], "the socket's end")
    assert served.run() == bare
    assert served.end() == ("", "", 7)


def test_one_client_too_many_is_told_so(start: Callable[..., Served]) -> None:
    served = start("cpp", *LIVE)
    clients = [Client(served) for _ in range(32)]
    assert all(client.ask(do="hello")["ok"] for client in clients)
    why = "it has 32 clients already: close one of them"
    assert served.live(clients[0].ask(do="hello")["pid"], "counts", code=2) == f"graphpatch: {why}\n"
    assert served.listening() == [], "the command looks for all that have room for it"
    clients.pop().close()
    wait_until(lambda: len(served.listening()) == 1, "a free place")
    assert served.end() == ("", "", 7)


def test_nobody_else_can_connect(start: Callable[..., Served]) -> None:
    served = start("cpp", *LIVE)
    file = served.folder / f"{served.pid()}.sock"
    assert stat.S_IMODE(served.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    if os.geteuid() == 0:  # only root can become somebody else; whoever opens the files is asked who he is
        for path, mode in [(served.folder.parent, 0o755), (served.folder, 0o755), (file, 0o666)]:
            path.chmod(mode)
        script = f"""
import os, socket
peer = socket.socket(socket.AF_UNIX)
os.setuid(65534)
peer.connect({str(file)!r})
print(peer.recv(1))
"""
        done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True)
        assert done.stdout == "b''\n", done.stderr
    served.folder.chmod(0o755)
    said = served.live("counts", code=2)
    assert "can be entered by other users" in said
    refused = subprocess.run([*LIVE, "/bin/true"], env=served.environment, capture_output=True, text=True)
    assert refused.returncode == 2 and "can be entered by other users" in refused.stderr


def test_a_forked_child_has_no_socket_and_the_parent_listens_on(start: Callable[..., Served]) -> None:
    served = start("cpp", *LIVE)
    client = Client(served)
    assert served.tell("fork") == "0\n"
    assert client.ask(do="hello")["ok"] and served.listening()
    assert served.end() == ("", "", 7)


def test_a_program_that_is_only_served_sees_nothing(
    start: Callable[..., Served], tuple_output: Callable[[str], Saved]
) -> None:
    bare = start("cpp")
    served = start("cpp", *LIVE)
    pid = served.pid()
    assert served.run() == bare.run()
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    assert {(task / "comm").read_text() for task in tasks} == {"served\n"}
    blocked = [
        int(line.split()[1], 16)
        for task in tasks
        for line in (task / "status").read_text().splitlines()
        if line.startswith("SigBlk")
    ]
    everything = 2**64 - 1 & ~(1 << signal.SIGKILL - 1) & ~(1 << signal.SIGSTOP - 1) & ~(0b11 << 31)
    assert [mask & everything for mask in blocked].count(everything) == 1
    assert served.end() == bare.end()


def test_the_thread_keeps_no_process_alive(start: Callable[..., Served]) -> None:
    served = start("cpp", *LIVE)
    served.pid()
    assert served.tell("leave") == ""
    assert served.end() == ("", "", 0)
    assert list(served.folder.iterdir()) == []


def test_what_a_killed_process_left_is_removed(start: Callable[..., Served]) -> None:
    served = start("cpp", *LIVE)
    pid = served.pid()
    os.kill(pid, signal.SIGKILL)
    served.end()
    assert [file.name for file in served.folder.iterdir()] == [f"{pid}.sock"]
    assert "does not listen" in served.live(pid, "counts", code=2)
    assert list(served.folder.iterdir()) == []
    assert "graphpatch run --live" in served.live("tree", code=2)


def test_the_socket_of_a_process_that_is_there_is_left_alone(tmp_path: Path) -> None:
    """It may be about to listen. A command that looked at it just then removed it, and nobody could connect any more."""
    folder = tmp_path / "graphpatch"
    folder.mkdir(mode=0o700)
    environment = {**ENVIRONMENT, "XDG_RUNTIME_DIR": str(tmp_path)}
    with socket.socket(socket.AF_UNIX) as unready:
        unready.bind(str(folder / f"{os.getpid()}.sock"))
        done = subprocess.run([GRAPHPATCH, "live", "--json"], env=environment, capture_output=True, text=True)
        assert (done.stdout, done.stderr, done.returncode) == ("[]\n", "", 0)
        assert [file.name for file in folder.iterdir()] == [f"{os.getpid()}.sock"]


def test_a_python_program_listens_when_it_says_so(
    start: Callable[..., Served], tuple_output: Callable[[str], Saved]
) -> None:
    bare, patched, _ = expected(tuple_output("scripted"))
    package = str(ROOT / "bindings/python")
    served = start("python", script=f"sys.path.insert(0, {package!r})\nimport libgraphpatch\nlibgraphpatch.live()")
    served.pid()
    assert served.run() == bare
    served.live("patch", "linear.output[..., 0]=zero")
    assert served.run() == patched
    served.live("stop")
    assert served.run() == bare
    assert served.end() == ("", "", 7)
