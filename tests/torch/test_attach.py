"""`graphpatch attach`: programs that were started bare listen, are patched, and run as before once they are detached. The value
of every forward is looked at."""

import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from models import TUPLE_OUTPUT_TREE, TupleOutputModule
from served import Client, Served, expected
from support import ENVIRONMENT, GRAPHPATCH, PROGRAMS, ROOT, TIMEOUT, Saved, wait_until

PATCH = "linear.output[..., 0]=zero"
# How often in a row a program is attached to and detached from. `make stress-attach` does it 100 times.
TIMES = int(os.environ.get("ATTACHES", "5"))

# A Python program that answers lines: the outputs of its model, or what of Python it would see us by.
SCRIPT = """
import os, sys, torch
sys.path.insert(0, {helpers!r})
from models import TupleOutputModule
model = TupleOutputModule().eval()
model.load_state_dict(torch.jit.load(sys.argv[1]).state_dict())
inputs = torch.load(sys.argv[2])
for line in sys.stdin:
    if line == "run\\n":
        with torch.no_grad():
            print(*(float(x).hex() for output in model(*inputs) for x in output.double().flatten()), flush=True)
    else:
        call = vars(torch.nn.Module)["__call__"]
        print(call is torch.nn.Module._wrapped_call_impl, sorted(os.environ.items()), sys.path, flush=True)
sys.exit(7)
"""

# A Python program whose model waits for a line in the middle of its forward, and is called again and again.
AMID = """
import sys, torch
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    def forward(self, x):
        x = self.first(x)
        print("inside", flush=True)
        sys.stdin.readline()
        return self.second(x)
model = Model()
with torch.no_grad():
    while True:
        model(torch.ones(1, 4))
"""

# The same in greenlets: a call is left in its middle, and goes on after a line has come.
AMID_GREENLETS = """
import sys, torch, greenlet
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    def forward(self, x):
        x = self.first(x)
        wait()
        return self.second(x)
model = Model()
def wait():
    print("inside", flush=True)
    if {in_the_call}:
        sys.stdin.readline()
        greenlet.greenlet(lambda: torch.nn.functional.relu(torch.nn.Identity()(torch.ones(1)))).switch()
    else:
        greenlet.getcurrent().parent.switch()
with torch.no_grad():
    while True:
        turn = greenlet.greenlet(lambda: model(torch.ones(1, 4)))
        turn.switch()
        if not {in_the_call}:
            sys.stdin.readline()
            turn.switch()
"""

# A program of one thread that waits in a system call until a byte comes, and prints what the call answered.
WAITING = """
import ctypes, os, struct, sys, torch
libc = ctypes.CDLL(None, use_errno=True)
read, write = 0, 1
events = ctypes.create_string_buffer(12)
polled = ctypes.create_string_buffer(struct.pack("ihh", read, 1, 0))
byte = ctypes.create_string_buffer(1)
group = libc.epoll_create1(0)
libc.epoll_ctl(group, 1, read, ctypes.create_string_buffer(struct.pack("<iq", 1, 0)))
os.write(write, b"ready\\n")
ctypes.set_errno(77)
answer = {call}
print(answer, ctypes.get_errno(), flush=True)
"""


def attach(pid: int, *options: str, code: int = 0, **environment: str) -> dict[str, Any] | str:
    done = subprocess.run(
        [GRAPHPATCH, "attach", str(pid), *options, "--json"],
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout) if code == 0 else done.stderr


def report(told: dict[str, Any] | str) -> None:
    """For `make stress-attach`."""
    assert isinstance(told, dict)
    print(f"searched {told['searched_ms']:.1f} ms, stalled {told['stalled_ms']:.1f} ms")


class Steady:
    """`build/steady`: a program that computes without end, and counts each output."""

    def __init__(self, saved: Saved, folder: Path, threads: int, first: str) -> None:
        self.environment = {"XDG_RUNTIME_DIR": str(folder)}
        self.counts = folder / "counts"
        self.threads = threads + (first == "computes")
        program = [PROGRAMS / "steady", *saved.args(), self.counts, threads, first]
        # Its threads leave the cores to whoever else works here.
        self.process = subprocess.Popen(
            [str(word) for word in program],
            env={**ENVIRONMENT, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: os.nice(19),
        )
        self.every_thread_has_done(1)

    def words(self) -> tuple[int, ...]:
        whole = self.counts.exists() and self.counts.stat().st_size == 146 * 8
        return struct.unpack("146Q", self.counts.read_bytes()) if whole else (0,) * 146

    def seen(self) -> dict[int, int]:
        """How often each output came, by its hash."""
        words = self.words()
        return {words[at]: words[at + 1] for at in range(18, 146, 2) if words[at]}

    def every_thread_has_done(self, more: int) -> None:
        before = self.words()[2 : 2 + self.threads]
        wait_until(
            lambda: all(now >= then + more for now, then in zip(self.words()[2:18], before, strict=False)),
            f"{more} forwards of every thread",
        )

    def next(self) -> set[int]:
        """The outputs of forwards that begin from now on: what every thread was at before has been counted."""
        self.every_thread_has_done(1)
        before = self.seen()
        self.every_thread_has_done(20)
        after = self.seen()
        return {of for of in after if after[of] > before.get(of, 0)}

    def live(self, *arguments: Any) -> str:
        done = subprocess.run(
            [GRAPHPATCH, "live", str(self.process.pid), *map(str, arguments)],
            env={**ENVIRONMENT, **self.environment},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def end(self) -> tuple[bytes, int]:
        with self.counts.open("r+b") as file:
            file.write(struct.pack("Q", 1))
        printed, _ = self.process.communicate(timeout=TIMEOUT)
        return printed, self.process.returncode


def of_outputs(outputs: tuple[torch.Tensor, ...]) -> int:
    """The hash by which the program counts."""
    so_far = 14695981039346656037
    for tensor in outputs:
        for byte in tensor.contiguous().numpy().tobytes():
            so_far = (so_far ^ byte) * 1099511628211 % 2**64
    return so_far


def hashes(saved: Saved) -> tuple[int, int]:
    """Those of the bare and of the patched output, as eager PyTorch computes them."""
    model = TupleOutputModule().eval()
    model.load_state_dict(torch.jit.load(str(saved.model)).state_dict())
    with torch.no_grad():
        first, second = model(*torch.load(saved.inputs))
    zeroed = first.clone()
    zeroed[..., 0] = 0
    return of_outputs((first, second)), of_outputs((zeroed, second))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name, because the path of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="gp-") as name:
        yield Path(name)


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen]]:
    """Processes that are ended after the test."""
    processes: list[subprocess.Popen] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def steady(
    folder: Path, tuple_output: Callable[[str], Saved], started: list[subprocess.Popen]
) -> Callable[[int, str], Steady]:
    def begin(threads: int, first: str) -> Steady:
        program = Steady(tuple_output("scripted"), folder, threads, first)
        started.append(program.process)
        return program

    return begin


def test_four_threads_of_torchscript(
    steady: Callable[[int, str], Steady], tuple_output: Callable[[str], Saved]
) -> None:
    bare, patched = hashes(tuple_output("scripted"))
    program = steady(4, "waits")
    assert program.next() == {bare}
    for _ in range(TIMES):
        told = attach(program.process.pid, **program.environment)
        assert told["python"] is None and not told["listened_before"]
        report(told)
        assert attach(program.process.pid, **program.environment)["listened_before"]
        assert program.next() == {bare}
        number = program.live("patch", PATCH).strip()
        assert program.next() == {patched}
        program.live("off", number)
        assert program.next() == {bare}
        program.live("on", number)
        assert program.next() == {patched}
        assert attach(program.process.pid, "--detach", **program.environment)["detached"]
        assert program.next() == {bare}
    attach(program.process.pid, **program.environment)
    assert program.live("tree") == TUPLE_OUTPUT_TREE
    program.live("detach")
    assert program.next() == {bare} and set(program.seen()) == {bare, patched}
    assert program.end() == (b"", 7)


def test_threads_that_make_no_system_call(
    steady: Callable[[int, str], Steady], tuple_output: Callable[[str], Saved]
) -> None:
    """It works, or the program is as it was and the message says what its threads did."""
    bare, patched = hashes(tuple_output("scripted"))
    program = steady(2, "computes")
    done = subprocess.run(
        [GRAPHPATCH, "attach", str(program.process.pid)],
        env={**ENVIRONMENT, **program.environment, "GRAPHPATCH_ATTACH_LIMIT": "0.3"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert program.next() == {bare}
    if done.returncode == 0:
        program.live("patch", PATCH)
        assert program.next() == {patched}
        program.live("detach")
    else:
        assert done.returncode == 2 and "computed without a system call" in done.stderr
        assert "for 0.3 seconds" in done.stderr and "GRAPHPATCH_ATTACH_LIMIT" in done.stderr
        status = Path(f"/proc/{program.process.pid}/status").read_text()
        assert "TracerPid:\t0\n" in status
    assert program.next() == {bare}
    assert program.end() == (b"", 7)


def test_a_python_server(folder: Path, tuple_output: Callable[[str], Saved], started: list[subprocess.Popen]) -> None:
    saved = tuple_output("scripted")
    bare, patched, _ = expected(saved)
    file = folder / "served.py"
    file.write_text(SCRIPT.format(helpers=str(ROOT / "tests/helpers")))
    served = Served([sys.executable, file, *saved.args()], folder)
    started.append(served.process)
    assert served.run() == bare
    state = served.tell("state")
    assert state.startswith("True ")
    pid, environment = served.process.pid, {"XDG_RUNTIME_DIR": str(folder)}
    for _ in range(TIMES):
        told = attach(pid, **environment)
        assert told["python"] is None
        report(told)
        assert served.run() == bare
        number = served.live("patch", PATCH).strip()
        assert served.run() == patched
        served.live("off", number)
        assert served.run() == bare
        served.live("on", number)
        assert served.run() == patched
        assert served.live(pid, "tree") == TUPLE_OUTPUT_TREE
        # But for the call of modules, Python is as it was.
        assert served.tell("state").removeprefix("False ") == state.removeprefix("True ")
        served.live("detach")
        wait_until(lambda: served.tell("state") == state, "torch's own call of modules")
        assert served.run() == bare
    assert served.end() == ("", "", 7)


def test_a_forward_that_is_under_way_makes_no_roots_of_its_parts(folder: Path, started: list[subprocess.Popen]) -> None:
    served = Served([sys.executable, "-c", AMID], folder)
    started.append(served.process)
    assert served.process.stdout and served.process.stdout.readline() == "inside\n"
    pid = served.process.pid
    attach(pid, XDG_RUNTIME_DIR=str(folder))
    client = Client(served)
    client.ask(do="recording", on=True)
    for _ in range(2):
        assert served.tell("go on") == "inside\n"
    wait_until(lambda: client.ask(do="tree")["roots"], "a run")
    assert [root["name"] for root in client.ask(do="tree")["roots"]] == ["Model.forward"]
    client.close()


@pytest.mark.parametrize("in_the_call", [True, False])
def test_a_forward_that_a_greenlet_has_left_makes_no_roots_of_its_parts(
    in_the_call: bool, folder: Path, started: list[subprocess.Popen]
) -> None:
    """When we attach, the model's call waits itself, or the greenlet that has called it has been left."""
    pytest.importorskip("greenlet")
    served = Served([sys.executable, "-c", AMID_GREENLETS.format(in_the_call=in_the_call)], folder)
    started.append(served.process)
    assert served.process.stdout and served.process.stdout.readline() == "inside\n"
    attach(served.process.pid, XDG_RUNTIME_DIR=str(folder))
    client = Client(served)
    client.ask(do="recording", on=True)
    for _ in range(2):
        assert served.tell("go on") == "inside\n"
    wait_until(lambda: client.ask(do="tree")["roots"], "a run")
    roots = {root["name"] for root in client.ask(do="tree")["roots"]}
    assert "Model.forward" in roots and roots <= {"Model.forward", "Identity.forward"}
    client.close()


@pytest.mark.parametrize("call", ["epoll_wait", "poll", "read"])
def test_a_call_that_waits_is_not_broken_off(call: str, folder: Path, started: list[subprocess.Popen]) -> None:
    """Also if the command is killed at any moment: then the next one finds the program as it was."""
    calls = {
        "epoll_wait": "libc.epoll_wait(group, events, 1, -1)",
        "poll": "libc.poll(polled, 1, 1000000)",
        "read": "libc.read(read, byte, 1)",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING.format(call=calls[call])],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    started.append(process)
    assert process.stdin and process.stdout
    assert process.stdout.readline() == b"ready\n"
    environment = {"XDG_RUNTIME_DIR": str(folder)}
    chance = random.Random(call)
    for _ in range(TIMES):
        command = subprocess.Popen(
            [GRAPHPATCH, "attach", str(process.pid)],
            env={**ENVIRONMENT, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(chance.uniform(0, 0.2))
        command.kill()
        command.wait()
        assert process.poll() is None
        wait_until(lambda: "TracerPid:\t0\n" in Path(f"/proc/{process.pid}/status").read_text(), "the command's end")
    assert attach(process.pid, **environment)["python"] is None
    process.stdin.write(b"x")
    process.stdin.flush()
    assert process.stdout.readline() == b"1 77\n"
    assert process.wait(TIMEOUT) == 0


def test_plain_cpp_says_what_it_cannot_see(folder: Path, started: list[subprocess.Popen]) -> None:
    program = subprocess.Popen(
        [str(PROGRAMS / "flat"), "loop", str(folder / "out.pt"), "1"], env=ENVIRONMENT, stdout=subprocess.PIPE
    )
    started.append(program)
    assert program.stdout and program.stdout.readline() == b"ready\n"
    done = subprocess.run(
        [GRAPHPATCH, "attach", str(program.pid)],
        env={**ENVIRONMENT, "XDG_RUNTIME_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0 and f"process {program.pid} listens now" in done.stdout
    assert "--run-at NAME" in done.stderr and "is not seen" in done.stderr
    assert program.poll() is None


def python(code: str) -> list[Any]:
    """A Python program that does this, says so, and waits."""
    return [sys.executable, "-c", f"import os, sys, time, ctypes\n{code}\nprint('ready', flush=True)\ntime.sleep(1000)"]


# A filter that allows everything, by seccomp(2): one instruction, `return SECCOMP_RET_ALLOW`.
FILTER = """
libc = ctypes.CDLL(None)
code = ctypes.create_string_buffer(b"\\x06\\0\\0\\0\\0\\0\\xff\\x7f")
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(1, ctypes.addressof(code)))) == 0
"""


def begin(started: list[subprocess.Popen], command: list[Any], **more: Any) -> subprocess.Popen:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**ENVIRONMENT, **more})
    started.append(process)
    assert process.stdout and process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize(
    ("why", "code"),
    [
        ("has loaded no libtorch", ""),
        ("limits its own system calls (seccomp)", FILTER),
        ("another libgraphpatch loaded", "ctypes.CDLL(sys.argv[1])"),
    ],
)
def test_what_a_process_has_is_refused(why: str, code: str, folder: Path, started: list[subprocess.Popen]) -> None:
    copy = folder / "libgraphpatch.so"
    if "another" in why:
        shutil.copyfile(GRAPHPATCH.with_name("libgraphpatch.so"), copy)
    process = begin(started, [*python(code), copy])
    said = attach(process.pid, code=2)
    assert f"process {process.pid} " in said and why in said
    assert process.poll() is None


def test_what_a_process_is_is_refused(folder: Path, started: list[subprocess.Popen]) -> None:
    assert "is not there" in attach(2**22 - 1, code=2)
    process = begin(started, python("import threading; threading.Thread(target=time.sleep, args=(1000,)).start()"))
    thread = next(int(tid) for tid in os.listdir(f"/proc/{process.pid}/task") if int(tid) != process.pid)
    assert f"is a thread of process {process.pid}" in attach(thread, code=2)
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: "State:\tT" in Path(f"/proc/{process.pid}/status").read_text(), "the stop")
    assert f"kill -CONT {process.pid}" in attach(process.pid, code=2)
    process.send_signal(signal.SIGCONT)
    # Another program that traces it, as a debugger would.
    seize = 0x4206
    traces = f"libc = ctypes.CDLL(None)\nassert libc.ptrace({seize}, {process.pid}, 0, 0) == 0"
    tracer = begin(started, python(traces))
    said = attach(process.pid, code=2)
    assert f"is being traced by process {tracer.pid}" in said
    process.kill()
    tracer.kill()
    wait_until(lambda: "State:\tZ" in Path(f"/proc/{process.pid}/status").read_text(), "the end")
    assert "has ended" in attach(process.pid, code=2)
    off = begin(started, python(""), GRAPHPATCH_DISABLE="1")
    assert "GRAPHPATCH_DISABLE" in attach(off.pid, code=2)
    assert "is no number of seconds" in attach_with_torch(started, folder, GRAPHPATCH_ATTACH_LIMIT="soon")


def attach_with_torch(started: list[subprocess.Popen], folder: Path, **environment: str) -> str:
    """What is said of a program that could be attached to."""
    process = begin(started, python("import torch"))
    said = attach(process.pid, code=2, XDG_RUNTIME_DIR=str(folder), **environment)
    assert isinstance(said, str)
    return said


def test_a_static_program_is_refused(folder: Path, started: list[subprocess.Popen]) -> None:
    source, program = folder / "static.c", folder / "static"
    source.write_text(
        '#include <stdio.h>\n#include <unistd.h>\nint main(void) { puts("ready"); fflush(stdout); pause(); }\n'
    )
    subprocess.run(["cc", "-static", "-o", program, source], check=True)
    process = begin(started, [program])
    assert "linked statically" in attach(process.pid, code=2)


def test_other_users_and_other_roots_are_refused(folder: Path, started: list[subprocess.Popen]) -> None:
    """Only root can make such processes: as another user, this asks what root may do."""
    others = 65534
    if os.geteuid() == 0:
        process = begin(started, python(f"os.setuid({others})"))
        assert f"runs as user {others}" in attach(process.pid, code=2)
        inside = begin(started, python(f"import torch\nos.chroot({str(folder)!r})"))
        assert "does not see the same" in attach(inside.pid, code=2, XDG_RUNTIME_DIR=str(folder))
    else:
        assert "runs as user 0" in attach(1, code=2)
