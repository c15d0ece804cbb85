"""What the scopes of its modules cost a finished C++ program: a forward of a GPT with one patch of an operation, beside
the bare program and beside the same patch without scopes (`GRAPHPATCH_CPP_MODULES=0`).

    benches/scopes.py [--rounds N]

In each round the program runs once in each way; each time counts as the median of 400 forwards. Ratios are those of one
round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The program's first forwards are slower: memory is taken, and where a run is recorded, its names are made.
FIRST, FORWARDS = 200, 400
SCOPES = {"GRAPHPATCH_CPP_MODULES": "1"}
FLAT = {"GRAPHPATCH_CPP_MODULES": "0"}
# By name: the path that is patched with scopes, and without.
PATCHES = {
    "one operation": ("h.sub_0.mlp.up.addmm=add:0", "h_0_mlp_up.addmm=add:0"),
    "nothing that the model has": ("absent=zero", "absent=zero"),
}


def forward(folder: Path, width: int, patch: str | None, environment: dict[str, str]) -> float:
    """Microseconds of a forward."""
    command = [ROOT / "build/gpt", "time", folder / "out.pt", str(FIRST + FORWARDS), str(width)]
    if patch is not None:
        command = [ROOT / "target/release/graphpatch", "run", "--patch", patch, "--", *command]
    ended = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,  # a patch that never matched is intended here
    )
    return statistics.median(map(float, ended.stdout.split()[FIRST:]))


def ratios(name: str, found: list[float]) -> None:
    low, median, high = statistics.quantiles(found, n=4, method="inclusive")
    target = "   target 1.05" if name.endswith("without scopes") else ""
    print(f"  {name:54} {median:5.2f} x   quartiles {low:.2f}..{high:.2f}{target}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for width in (64, 256):
            times: dict[str, list[float]] = {}
            for _ in range(rounds):
                times.setdefault("bare", []).append(forward(folder, width, None, {}))
                for name, (scoped, flat) in PATCHES.items():
                    times.setdefault(name, []).append(forward(folder, width, scoped, SCOPES))
                    times.setdefault(f"{name}, flat", []).append(forward(folder, width, flat, FLAT))
            print(f"\nscopes of a finished C++ program, {width} wide, {rounds} rounds, a patch of:")
            for name in PATCHES:
                pairs = zip(times[name], times["bare"], times[f"{name}, flat"], strict=True)
                to_bare, to_flat = zip(*[(own / bare, own / flat) for own, bare, flat in pairs], strict=True)
                ratios(f"{name}, to the bare program", list(to_bare))
                ratios(f"{name}, to the same without scopes", list(to_flat))


if __name__ == "__main__":
    main()
