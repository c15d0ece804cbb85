"""The server of bindings/cpp/examples, built against the installed tree: every answer is PyTorch's own."""

import re
import signal
import socket
import subprocess
import threading
import time
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from installed import build, clean
from models import VOCAB, Encoder
from support import TIMEOUT, save, wait_until

PATH = "layers_0.output"
CLIENTS, REQUESTS, CHANGES = 6, 60, 20


class Client:
    """A client that asks line by line. An answer ends with an empty line."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("r")

    def ask(self, line: str) -> str:
        self.socket.sendall(f"{line}\n".encode())
        answer = []
        while (text := self.lines.readline()) != "\n":
            assert text, f"the server has hung up on: {line}"
            answer.append(text)
        return "".join(answer)

    def infer(self, ids: list[int]) -> tuple[int, torch.Tensor]:
        """The batch, and the model's row."""
        words = self.ask(f"infer {' '.join(map(str, ids))}").split()
        assert words[0] == "ok", words
        return int(words[1]), torch.tensor([float(word) for word in words[2:]])


def listens(path: Path) -> bool:
    """Whether a server accepts connections at a path. Between its `bind` and its `listen` the file is there, and connections are refused."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def close_to(row: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether two rows agree up to rounding: sums in a batch may have another order than sums of a single row."""
    return torch.allclose(row, expected.flatten(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("way", ["cmake", "pkg-config"])
def test_every_answer_is_bare_or_patched(way: str, moved: Path, tmp_path: Path) -> None:
    server = build("server", way, moved, tmp_path / "build")
    torch.manual_seed(0)
    model = Encoder().eval()
    asked = [torch.randint(0, VOCAB, (1, 3 + i % 3)).tolist()[0] for i in range(REQUESTS)]
    saved = save(model, (torch.tensor([asked[0]]),), tmp_path / "model")
    tree = saved.run().ok().tree

    with torch.no_grad():
        bare = [model(torch.tensor([ids])) for ids in asked]
        hook = model.layers[0].register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
        patched = [model(torch.tensor([ids])) for ids in asked]
        hook.remove()
    assert not any(close_to(a.flatten(), b) for a, b in zip(bare, patched))

    path = tmp_path / "s"
    process = subprocess.Popen(
        [str(server), str(saved.model), str(path), "--workers", "3", "--batch", "4"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean(tmp_path / "home"),
    )
    try:
        wait_until(lambda: listens(path) or process.poll() is not None, "the server")
        assert process.poll() is None, process.communicate()
        control = Client(path)
        assert control.ask("tree").startswith("error nothing has run")
        assert close_to(control.infer(asked[0])[1], bare[0])
        assert control.ask("tree") == f"ok\n{tree}"
        refused = control.ask("patch layers_0.outptu=zero")
        assert refused.startswith("error") and f"nearest: {PATH}" in refused
        assert control.ask("infer 1 x").startswith("error") and control.ask("frobnicate").startswith("error")
        assert control.ask(f"infer {VOCAB}").startswith("error"), "an id that the model does not have"
        control.ask(f"patch {PATH}=zero")
        assert close_to(control.infer(asked[1])[1], patched[1])
        assert f"patch {PATH}=zero: matched 1, applied 1, failed 0" in control.ask("stats")
        assert control.ask("clear") == "ok 1\n"

        answers: list[list[tuple[int, torch.Tensor]]] = [[] for _ in range(CLIENTS)]
        changes = 0

        def serve(n: int) -> None:
            """Sends all requests once, and again until the patch was added and removed several times."""
            client = Client(path)
            while not answers[n] or changes < CHANGES:
                answers[n] += [client.infer(ids) for ids in asked]

        threads = [threading.Thread(target=serve, args=(n,)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            control.ask(f"patch {PATH}=zero" if changes % 2 == 0 else "clear")
            changes += 1
            time.sleep(0.003)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()

    assert all(answered and len(answered) % REQUESTS == 0 for answered in answers), stderr
    kinds: dict[int, list[bool]] = defaultdict(list)
    for answered in answers:
        for i, (batch, row) in enumerate(answered):
            is_patched = close_to(row, patched[i % REQUESTS])
            assert is_patched or close_to(row, bare[i % REQUESTS]), f"request {i} is neither"
            kinds[batch].append(is_patched)
    assert all(len(set(batch)) == 1 for batch in kinds.values()), "a batch is of both kinds"
    assert {batch[0] for batch in kinds.values()} == {False, True}, "the patch never changed while requests ran"
    assert any(len(batch) > 1 for batch in kinds.values()), "nothing was batched"

    assert process.returncode == 0, stderr
    assert f"requests {sum(map(len, answers)) + 2} answered, 1 failed" in stdout
    assert re.search(r"latency [\d.]+ ms median, [\d.]+ ms at 99 %\nthroughput [\d.]+ requests/s", stdout)
    assert not path.exists(), "the socket stays"
