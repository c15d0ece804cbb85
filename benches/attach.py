"""What attaching costs a program that runs already: how long a thread of it is kept from its own work, and how much a
forward costs before it is attached to, while it listens, and after it was detached.

    benches/attach.py [--rounds N]

A program in C++ runs a small TorchScript module on one thread. Forwards are counted by the processor time of the
process, so that other work on the machine matters little. Ratios are medians over the rounds, each to the bare program
of the same round.
"""

import argparse
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
GRAPHPATCH = ROOT / "target/release/graphpatch"
TICKS = os.sysconf("SC_CLK_TCK")
# How much processor time one measurement takes, in seconds.
SPAN = 1.0


class Program:
    def __init__(self, folder: Path) -> None:
        layers = [torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 64)]
        torch.jit.script(torch.nn.Sequential(*layers).eval()).save(folder / "model.pt")
        torch.save((torch.ones(1, 64),), folder / "inputs.pt")
        self.counts = folder / "counts"
        command = [ROOT / "build/steady", folder / "model.pt", folder / "inputs.pt", self.counts, "1", "waits"]
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_RUNTIME_DIR": str(folder)}
        self.process = subprocess.Popen([str(word) for word in command], env=self.environment)
        while self.forwards() < 1000:
            time.sleep(0.05)

    def forwards(self) -> int:
        whole = self.counts.exists() and self.counts.stat().st_size >= 24
        return struct.unpack("3Q", self.counts.read_bytes()[:24])[2] if whole else 0

    def seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def cost(self) -> float:
        """Microseconds of processor time for a forward."""
        forwards, seconds = self.forwards(), self.seconds()
        while self.seconds() < seconds + SPAN:
            time.sleep(0.05)
        return (self.seconds() - seconds) / (self.forwards() - forwards) * 1e6

    def command(self, *options: str) -> dict:
        done = subprocess.run(
            [GRAPHPATCH, "attach", str(self.process.pid), *options, "--json"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)

    def end(self) -> None:
        with self.counts.open("r+b") as file:
            file.write(struct.pack("Q", 1))
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    listening, detached, stalled = [], [], []
    for at in range(rounds):
        with tempfile.TemporaryDirectory(prefix="gp-") as name:
            program = Program(Path(name))
            bare = program.cost()
            stalled.append(program.command()["stalled_ms"])
            listening.append(program.cost() / bare)
            program.command("--detach")
            detached.append(program.cost() / bare)
            program.end()
        print(f"round {at + 1}: {bare:.2f} µs bare", file=sys.stderr)
    print(f"stalled for   {statistics.median(stalled):.1f} ms, {max(stalled):.1f} at most")
    print(f"listening     {statistics.median(listening):.3f} × bare")
    print(f"detached      {statistics.median(detached):.3f} × bare")


if __name__ == "__main__":
    main()
