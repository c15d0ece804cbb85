"""vLLM's OpenAI server, started without anything of ours, is attached to while it serves; it is patched, switched and detached from.
The tokens are those that a forward hook of PyTorch gives offline, then those of the server without us, also where a prompt's beginning
is in the prefix cache; and no request that is under way meanwhile is lost."""

import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import INSTALLED
from support import GRAPHPATCH, TIMEOUT, wait_until
from test_batches import PROMPTS
from test_server import Server

PATCH = "model.layers_1.mlp.output=zero"
HOOK = {"module": "model.layers.1.mlp", "kind": "zero"}
# The last one is longer than a block of the prefix cache.
ASKED = [PROMPTS[0], PROMPTS[4], [5 + number % 200 for number in range(200)]]


class Traffic:
    """Requests that are under way all the time. They begin as the longest of `ASKED` does, so they share its cached blocks."""

    def __init__(self, server: Server) -> None:
        self.server, self.begun, self.wrong = server, 0, list[Any]()
        self._goes_on = True
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while self._goes_on:
            self.begun += 1
            status, answer = self.server.ask(prompt=ASKED[2], max_tokens=40)
            if status != 200 or len(answer["choices"][0]["token_ids"]) != 40:
                self.wrong.append(answer)

    def another(self) -> None:
        """Waits until one more has begun."""
        begun = self.begun
        wait_until(lambda: self.begun > begun, "a request")

    def stop(self) -> None:
        self._goes_on = False
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="module")
def server(
    model: Path, environment: Callable[..., dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    bare = {
        name: value
        for name, value in environment().items()
        if not name.startswith("GRAPHPATCH_") and name not in ("LD_PRELOAD", "XDG_RUNTIME_DIR")
    }
    folder = tmp_path_factory.mktemp("log")
    made = Server(model, {**bare, "PYTHONPATH": str(INSTALLED)}, folder / "server.log")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def offline(generate: Callable[..., Any]) -> tuple[list[list[int]], list[list[int]]]:
    """The tokens of each prompt alone, without a hook and with one."""
    requests = [{"prompt": prompt} for prompt in ASKED]
    found = generate([*([one] for one in requests), *({"requests": [one], "hook": HOOK} for one in requests)])
    tokens = [one[0]["tokens"] for one in found]
    return tokens[:3], tokens[3:]


@pytest.fixture(scope="module")
def graphpatch(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs the command, and returns what it has said."""
    folder = tmp_path_factory.mktemp("run", numbered=True)
    folder.chmod(0o700)

    def run(*arguments: Any, code: int = 0) -> str:
        done = subprocess.run(
            [GRAPHPATCH, *map(str, arguments)],
            env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    vars(run)["folder"] = folder
    return run


def answers(server: Server) -> list[list[int]]:
    return [server.ask(prompt=prompt)[1]["choices"][0]["token_ids"] for prompt in ASKED]


def test_a_serving_server_is_attached_to_patched_switched_and_detached_from(
    server: Server, offline: tuple[list[list[int]], list[list[int]]], graphpatch: Callable[..., str]
) -> None:
    bare, hooked = offline
    assert answers(server) == bare and hooked[2] != bare[2]
    traffic = Traffic(server)
    try:
        told = graphpatch("attach", server.process.pid, code=2)
        (pid,) = re.findall(r"`graphpatch attach (\d+)`", told)
        assert "vLLM's model runs in process" in told
        traffic.another()
        graphpatch("attach", pid)
        assert "\n├─model: Graph(" in graphpatch("live", pid, "tree")
        assert answers(server) == bare
        change_and_look(server, traffic, lambda *words: graphpatch("live", pid, *words), bare, hooked)
        hang_up(server, int(pid), graphpatch, bare, hooked)
        graphpatch("live", pid, "patch", PATCH)
        assert answers(server) == hooked
        traffic.another()
        graphpatch("attach", "--detach", pid)
        assert answers(server) == bare
        assert json.loads(graphpatch("live", "--json")) == []
        assert [file.name for file in (vars(graphpatch)["folder"] / "graphpatch").iterdir()] == []
    finally:
        traffic.stop()
    assert traffic.wrong == [] and answers(server) == bare


def change_and_look(
    server: Server, traffic: Traffic, live: Callable[..., str], bare: list[list[int]], hooked: list[list[int]]
) -> None:
    number = live("patch", PATCH).strip()
    assert answers(server) == hooked
    (state,) = json.loads(live("counts", "--json"))["patches"]
    assert state["applied"] == state["matched"] > 0 == state["failed"]
    for command, expected in [("off", bare), ("on", hooked), ("remove", bare)]:
        traffic.another()
        live(command, number)
        assert answers(server) == expected, command


def hang_up(
    server: Server, pid: int, graphpatch: Callable[..., str], bare: list[list[int]], hooked: list[list[int]]
) -> None:
    """A patch that holds only as long as its client is connected."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(vars(graphpatch)["folder"] / f"graphpatch/{pid}.sock"))
    client.sendall(json.dumps({"do": "patch", "patch": PATCH, "hold": True}).encode() + b"\n")
    assert json.loads(client.makefile().readline())["ok"]
    assert answers(server) == hooked
    client.close()
    wait_until(lambda: not json.loads(graphpatch("live", pid, "counts", "--json"))["patches"], "the patch goes")
    assert answers(server) == bare


def test_a_server_can_be_attached_to_again(
    server: Server, offline: tuple[list[list[int]], list[list[int]]], graphpatch: Callable[..., str]
) -> None:
    bare, hooked = offline
    (pid,) = re.findall(r"`graphpatch attach (\d+)`", graphpatch("attach", server.process.pid, code=2))
    graphpatch("attach", pid)
    graphpatch("live", pid, "patch", PATCH)
    assert answers(server) == hooked
    graphpatch("live", pid, "stop")
    assert answers(server) == bare
