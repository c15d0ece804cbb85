"""Programs that run a model on request, clients of theirs, and what the model computes: for the tests of live control."""

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import torch

from models import TupleOutputModule
from support import ENVIRONMENT, GRAPHPATCH, TIMEOUT, Saved, wait_until


class Served:
    """A program that runs its model once for each `run` on its stdin."""

    def __init__(self, command: list[Any], folder: Path) -> None:
        self.environment = {**ENVIRONMENT, "XDG_RUNTIME_DIR": str(folder)}
        self.folder = folder / "graphpatch"
        self.process = subprocess.Popen(
            [str(word) for word in command],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def tell(self, line: str) -> str:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def run(self) -> list[float]:
        return [float.fromhex(word) for word in self.tell("run").split()]

    def live(self, *arguments: Any, code: int = 0) -> str:
        done = subprocess.run(
            [GRAPHPATCH, "live", *map(str, arguments)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    def listening(self) -> list[dict[str, Any]]:
        assert self.process.poll() is None, self.process.stderr and self.process.stderr.read()
        return json.loads(self.live("--json"))

    def pid(self) -> int:
        return wait_until(self.listening, "a process listens")[0]["pid"]

    def end(self) -> tuple[str, str, int]:
        stdout, stderr = self.process.communicate(timeout=TIMEOUT)
        return stdout, stderr, self.process.returncode


class Client:
    """A client other than the command. It sends one JSON object in each line."""

    def __init__(self, served: Served) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(str(served.folder / f"{served.pid()}.sock"))
        self.lines = self.socket.makefile("r")

    def ask(self, **request: Any) -> dict[str, Any]:
        return self.send(json.dumps(request).encode() + b"\n")

    def send(self, line: bytes) -> dict[str, Any]:
        self.socket.sendall(line)
        return json.loads(self.lines.readline())

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


def numbers(outputs: tuple[torch.Tensor, ...]) -> list[float]:
    return [x for output in outputs for x in output.double().flatten().tolist()]


def expected(saved: Saved) -> tuple[list[float], list[float], torch.Tensor]:
    """The eager model's output, the output with column 0 of the first call's result at zero, and that result."""
    model = TupleOutputModule().eval()
    model.load_state_dict(torch.jit.load(str(saved.model)).state_dict())
    inputs = torch.load(saved.inputs)
    with torch.no_grad():
        first, second = model(*inputs)
        zeroed = first.clone()
        zeroed[..., 0] = 0
    return numbers((first, second)), numbers((zeroed, second)), first
