"""Writes down the values at the NodePaths that record.py found, to find our paths that have the same values.

    python values.py [OUT_FILE]

Run it with the Python that record.py needs. Each tensor of graphpatch-0.2.3.json gets its fingerprint (fingerprint.py),
or null where graphpatch could not probe it. The result is committed.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import record
import torch
from graphpatch import PatchableGraph, ProbePatch

from fingerprint import fingerprint
from fixtures import FIXTURES

REFERENCE = record.HERE / "graphpatch-0.2.3.json"


def probed(name: str, paths: list[str]) -> dict[str, list[float] | None]:
    torch._dynamo.reset()
    module, args, kwargs = FIXTURES[name]()
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    graph = PatchableGraph(module, *args, **kwargs)
    found: dict[str, list[float] | None] = {}
    for path in paths:  # one by one, because a probe that graphpatch cannot make would make the others fail
        _, args, kwargs = FIXTURES[name]()  # a fixture may write to its inputs
        for key, buffer in graph.named_buffers():  # and to its buffers
            if (before := buffers.get(key.removeprefix("_graph_module."))) is not None:
                buffer.data.copy_(before)
        probe = ProbePatch()
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad(), graph.patch({path: probe}):
                torch.manual_seed(0)
                graph(*args, **kwargs)
        except Exception as error:  # whatever graphpatch raises
            print(f"  {name} {path}: {type(error).__name__}: {record.first_line(str(error))}")
        found[path] = fingerprint(probe.activation) if isinstance(probe.activation, torch.Tensor) else None
    return found


def main() -> None:
    warnings.simplefilter("ignore")
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else record.HERE / "graphpatch-0.2.3-values.json"
    reference: dict[str, Any] = json.loads(REFERENCE.read_text(encoding="utf-8"))["fixtures"]
    result = {}
    for name, fixture in reference.items():
        if "tensors" in fixture:
            result[name] = probed(name, list(fixture["tensors"]))
            probes = [value for value in result[name].values() if value is not None]
            print(f"{name}: {len(probes)} of {len(result[name])}", flush=True)
    out.write_text(record.as_text(result, spread=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
