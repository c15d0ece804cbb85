"""What the tests of `graphpatch view` share: running a command, a browser, graphs that no program made."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
GRAPHPATCH = ROOT / "target/release/graphpatch"

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

# After so many seconds a process or a page counts as hung. A busy machine may be slow.
TIMEOUT = 300

# The sandbox does not work for root in a container. The other flags keep the browser from using a network.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
]


# Kinds of programs. The fixture of the same name is a graph of such a program.
HOSTS = ["encoder", "gpt2", "scopes", "modules", "plain"]


def browser_path() -> str | None:
    names = [os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    return next((path for path in map(shutil.which, filter(None, names)) if path), None)


def run(*args: Any, code: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [str(arg) for arg in args],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        timeout=TIMEOUT,
    )
    assert done.returncode == code, done.stderr
    return done


def synthetic(layers: int, wide: int) -> dict:
    """A graph of many nodes: layers of operations that each use the one before and one of the layer before."""

    def tensor(*shape: int) -> dict:
        return {"tensor": {"shape": list(shape), "dtype": "float32", "device": "cpu", "layout": "strided"}}

    scopes = []
    for layer in range(layers):
        nodes = [
            {
                "name": "x",
                "kind": "input",
                "value": tensor(1, 64),
                "args": [{"node": "x" if layer == 0 else f"layers_{layer - 1}"}],
            }
        ]
        for i in range(wide - 3):
            last = nodes[-1]["name"]
            nodes.append(
                {
                    "name": f"add_{i}",
                    "kind": "op",
                    "target": "aten::add.Tensor",
                    "value": tensor(1, 64, i + 1),
                    "args": [{"node": last}, {"node": nodes[i // 2]["name"]}],
                    "frames": [
                        {"file": f"model_{layer}.py", "line": i + 1, "function": "forward", "text": f"x = x + y{i}"}
                    ],
                }
            )
        nodes.append(
            {"name": "output", "kind": "output", "value": tensor(1, 64), "args": [{"node": nodes[-1]["name"]}]}
        )
        scopes.append(
            {
                "name": f"layers_{layer}",
                "kind": "scope",
                "target": "zoo.Layer",
                "module_path": f"layers.{layer}",
                "children": nodes,
            }
        )
    children = [
        {"name": "x", "kind": "input", "value": tensor(1, 64)},
        *scopes,
        {"name": "output", "kind": "output", "value": tensor(1, 64), "args": [{"node": f"layers_{layers - 1}"}]},
    ]
    return {"name": "Big.forward", "runs": 1, "root": {"name": "<root>", "kind": "scope", "children": children}}


def until(page: Any, condition: str) -> None:
    """Waits for a condition in the page. Playwright's own way needs `eval` there, which the page forbids."""
    end = time.monotonic() + TIMEOUT
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(20)
