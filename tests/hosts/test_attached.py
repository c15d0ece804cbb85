"""Programs that are attached to while signals interrupt them, while they fork, at their limits, without standard streams, in namespaces
and as other users: each goes on as it was, patched or not, or is refused with the reason."""

import contextlib
import os
import re
import select
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compiling import HERE, compile_with_model
from hosting import ENVIRONMENT, GRAPHPATCH, PATIENCE

# How often a program is attached to and detached from. `make hosts` does it more often.
TIMES = 20 if os.environ.get("HOSTS") == "all" else 3
PATCH = "sub_2.linear=zero"
PATCHED = "0x0p+0"
OTHER_USER = 65534


class Program:
    """`obeys`: it runs its model and does other things as it is told."""

    def __init__(self, command: list[str], folder: Path, model: dict[str, str], **more: object) -> None:
        self.environment = {**ENVIRONMENT, **model, "XDG_RUNTIME_DIR": str(folder)}
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **more,  # type: ignore[call-overload]
        )
        self.bare = self.tell("run")
        assert self.bare and self.bare != PATCHED
        self.pid = self.process.pid

    def tell(self, line: str) -> str:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def command(self, *arguments: object, code: int = 0) -> str:
        done = subprocess.run(
            [str(GRAPHPATCH), *map(str, arguments)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def attach(self, *options: str, code: int = 0) -> str:
        return self.command("attach", *options, self.pid, code=code)

    def is_patched_and_bare_again(self) -> None:
        self.command("live", self.pid, "patch", PATCH)
        assert self.tell("run") == PATCHED
        self.attach("--detach")
        assert self.tell("run") == self.bare

    def is_refused(self, why: str) -> None:
        said = self.attach(code=2)
        assert f"process {self.pid} " in said and why in said, said
        assert self.tell("run") == self.bare

    def end(self) -> None:
        """It ends as it does alone, and has said nothing."""
        assert self.process.communicate(timeout=PATIENCE) == ("", "")
        assert self.process.returncode == 7


@pytest.fixture(scope="module")
def obeys(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(compile_with_model(HERE / "programs/obeys.c", tmp_path_factory.mktemp("obeys") / "obeys"))


@pytest.fixture
def start(obeys: str, model: dict[str, str]) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    with contextlib.ExitStack() as folders:

        def begin(*before: str, program: str = obeys, **more: object) -> Program:
            # The path of a socket has at most 107 bytes.
            folder = Path(folders.enter_context(tempfile.TemporaryDirectory(prefix="gp-")))
            started.append(Program([*before, program], folder, model, **more))
            return started[-1]

        yield begin
        for program in started:
            # With its children, which may hold its streams.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.process.pid, signal.SIGKILL)
            program.process.communicate()


def test_signals_are_neither_lost_nor_late(start: Callable[..., Program]) -> None:
    program, sent = start(), 0
    program.tell("signals")
    for _ in range(TIMES):
        for _ in range(50):
            os.kill(program.pid, signal.SIGRTMIN)
            sent += 1
        program.attach()
        program.is_patched_and_bare_again()
        assert program.tell("counted") == str(sent)
    program.end()


def test_one_that_computes_and_then_waits_for_long(start: Callable[..., Program]) -> None:
    """The command follows it while it computes. What it waits in does not end by itself."""
    program = start()
    program.tell("compute")
    program.attach()
    program.is_patched_and_bare_again()
    program.end()


def test_one_that_was_followed_is_not_broken_off(start: Callable[..., Program]) -> None:
    """A thread that waits for events, but cannot be borrowed there, would see an error in any stop that is not undone."""
    program = start()
    program.environment["GRAPHPATCH_ATTACH_LIMIT"] = "3"
    program.tell("small")
    assert "had too small a stack" in program.attach(code=2)
    assert program.tell("waits") == "yes"
    program.end()


def test_children_that_are_forked_meanwhile_are_right(start: Callable[..., Program]) -> None:
    program = start()
    program.tell("fork")
    for _ in range(TIMES):
        program.attach()
        program.is_patched_and_bare_again()
    # A child may come while a thread of its parent asks libtorch, under a lock of libtorch's, for the callbacks that attaching
    # has changed: docs/explanation/threads.md.
    assert re.fullmatch(r"right \d+ wrong 0 hung [01]", program.tell("children"))
    program.end()


def test_descriptors_are_left_alone(start: Callable[..., Program]) -> None:
    program = start()
    before = program.tell("descriptors")
    program.attach()
    assert program.tell("descriptors") == before, "low numbers are the program's"
    program.is_patched_and_bare_again()
    open_now = os.listdir(f"/proc/{program.pid}/fd")
    for _ in range(TIMES):
        program.attach()
        program.is_patched_and_bare_again()
    assert os.listdir(f"/proc/{program.pid}/fd") == open_now
    # Where the standard streams are closed, nothing of ours takes their place.
    program.tell("close")
    told = program.tell("write")
    assert told.count("Bad file descriptor") == 3
    program.attach()
    with connected(program):
        assert program.tell("write") == told
    # A program may close everything, and open files of its own under the same numbers.
    program.tell("take")
    mine = program.tell("mine")
    # The thread sees it within a second; a client that comes before is cut off.
    said = program.command("live", program.pid, "tree", code=2)
    assert "does not listen" in said or "has hung up" in said
    assert program.tell("run") == program.bare and program.tell("mine") == mine
    program.end()


class connected:
    """A client that stays."""

    def __init__(self, program: Program) -> None:
        self.watch = subprocess.Popen(
            [str(GRAPHPATCH), "live", str(program.pid), "watch", "sub_0.linear"],
            env=program.environment,
            stdout=subprocess.PIPE,
        )
        self.program = program

    def __enter__(self) -> None:
        """It is there when it has told of a run."""
        assert self.watch.stdout
        while not select.select([self.watch.stdout], [], [], 0)[0]:
            self.program.tell("run")
        assert self.watch.stdout.read(1), "it has ended"

    def __exit__(self, *_: object) -> None:
        self.watch.kill()
        self.watch.communicate()


@pytest.mark.parametrize(
    ("what", "why"),
    [("files", "Too many open files"), ("memory", "Cannot allocate memory|failed to map|cannot create")],
)
def test_a_program_at_its_limit_is_refused(what: str, why: str, start: Callable[..., Program]) -> None:
    program = start()
    program.tell(f"limit {what}")
    said = program.attach(code=2)
    assert f"process {program.pid} did not load the library" in said and re.search(why, said), said
    assert program.tell("run") == program.bare
    program.end()


def test_a_program_that_may_write_no_file_is_patched(start: Callable[..., Program]) -> None:
    """The library answers the command by a file, which must not end the program (SIGXFSZ)."""
    program = start()
    program.tell("limit bytes")
    program.attach()
    program.is_patched_and_bare_again()
    program.end()


def test_a_program_that_seals_itself_later_goes_on(start: Callable[..., Program]) -> None:
    program = start()
    program.attach()
    assert program.tell("seal") == "done"
    program.command("live", program.pid, "patch", PATCH)
    assert program.tell("run") == PATCHED
    program.command("live", program.pid, "off", 1)
    assert program.tell("run") == program.bare
    program.end()


def has(*command: str) -> bool:
    """Whether this machine lets a program make such a namespace. Many containers do not."""
    return subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0


def child_of(program: Program) -> int:
    return int(Path(f"/proc/{program.process.pid}/task/{program.process.pid}/children").read_text().split()[0])


@pytest.mark.skipif(not has("unshare", "--pid", "--fork"), reason="no PID namespace can be made here")
def test_other_numbers_of_processes(start: Callable[..., Program]) -> None:
    program = start("unshare", "--pid", "--fork", "--kill-child")
    program.pid = child_of(program)
    program.is_refused("run `graphpatch attach 1` inside that container")
    # A command that sees another namespace's /proc might look at one process and stop another.
    said = subprocess.run(
        ["unshare", "--pid", "--fork", str(GRAPHPATCH), "attach", str(program.pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 2 and "another PID namespace" in said.stderr
    # Inside, it works.
    inside = ["nsenter", "--target", str(program.pid), "--pid", "--mount", "unshare", "--mount", "--mount-proc"]
    for arguments in (["attach", "1"], ["live", "1", "patch", PATCH]):
        done = subprocess.run(
            [*inside, str(GRAPHPATCH), *arguments], env=program.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done
    assert program.tell("run") == PATCHED
    program.end()


@pytest.mark.skipif(not has("unshare", "--user"), reason="no user namespace can be made here")
@pytest.mark.parametrize("options", [["--user"], ["--user", "--map-root-user"]], ids=["nobody", "root"])
def test_user_namespaces(options: list[str], start: Callable[..., Program]) -> None:
    program = start("unshare", *options)
    if len(options) == 2:
        program.attach()
        program.is_patched_and_bare_again()
    else:
        program.is_refused("user namespace")
    program.end()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make programs of other users")
def test_a_program_with_more_rights_than_its_caller(obeys: str, start: Callable[..., Program]) -> None:
    """Root may attach to it (setuid), and its caller may not."""
    other = {"user": OTHER_USER, "group": OTHER_USER}
    with tempfile.TemporaryDirectory(prefix="gp-") as name:
        raised = Path(name) / "raised"
        raised.write_bytes(Path(obeys).read_bytes())
        raised.chmod(stat.S_ISUID | 0o755)
        raised.parent.chmod(0o755)
        program = start(program=str(raised), **other)
        assert Path(f"/proc/{program.pid}/status").stat().st_uid == 0, "it has root's rights"
        done = subprocess.run(
            [str(GRAPHPATCH), "attach", str(program.pid)], **other, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2 and "runs as user 0" in done.stderr, done
        assert program.tell("run") == program.bare
        program.attach()
        program.is_patched_and_bare_again()
        program.end()
