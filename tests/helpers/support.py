"""What the tests share: saving modules, running host programs as real processes, reading trees, comparing bit for bit."""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
GRAPHPATCH = ROOT / "target/release/graphpatch"
PROGRAMS = ROOT / "build"

# One thread everywhere, so that sums are computed in the same order here and in the programs.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
torch.set_num_threads(1)

# After so many seconds a process counts as hung. None needs more than some seconds (a minute under valgrind), but the
# machine may be busy with other work.
TIMEOUT = 600


@dataclass
class Result:
    """How a process ended, and what it left behind."""

    stdout: str
    stderr: str
    code: int
    graph: dict | None = None
    outputs: list[list[Any]] = field(default_factory=list)  # by thread, by run
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    inputs: tuple[Any, ...] = ()

    @property
    def output(self) -> Any:
        return self.outputs[0][0]

    @property
    def tree(self) -> str:
        return tree_in(self.stderr)

    def ok(self) -> "Result":
        assert self.code == 0, f"exit code {self.code}\n{self.stderr}"
        return self


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Waits until the condition returns a true value, and returns that value."""
    end = time.monotonic() + TIMEOUT
    while not (answer := condition()):
        assert time.monotonic() < end, f"{what}: not within {TIMEOUT} s"
        time.sleep(0.02)
    return answer


def run_process(args: Sequence[Any], **kwargs: Any) -> Result:
    done = subprocess.run(
        [str(a) for a in args],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        timeout=TIMEOUT,
        **kwargs,
    )
    return Result(done.stdout, done.stderr, done.returncode)


def graphpatch(*args: Any) -> Result:
    return run_process([GRAPHPATCH, *args])


@dataclass
class Saved:
    """A TorchScript file with inputs for it, and the ways to run the two."""

    model: Path
    inputs: Path
    folder: Path

    def args(self) -> list[Any]:
        return [self.model, self.inputs]

    def bare(self, *options: Any) -> Result:
        """The runner program without graphpatch."""
        return self._runner([], options)

    def run(
        self,
        *options: Any,
        patches: Sequence[str] = (),
        tree: bool = True,
        graph: Path | None = None,
        extra: Sequence[Any] = (),
    ) -> Result:
        """The runner program under `graphpatch run`; `extra` holds further options of graphpatch."""
        command: list[Any] = [GRAPHPATCH, "run", *extra]
        command += ["--tree"] if tree else []
        command += ["--graph", graph] if graph else []
        for patch in patches:
            command += ["--patch", patch]
        result = self._runner([*command, "--"], options)
        if graph and graph.exists():
            result.graph = json.loads(graph.read_text())
        return result

    def _runner(self, before: list[Any], options: Sequence[Any]) -> Result:
        out = self.folder / "out.pt"
        out.unlink(missing_ok=True)
        result = run_process([*before, PROGRAMS / "runner", *self.args(), out, *options])
        if out.exists():
            threads, weights, inputs = torch.load(out, weights_only=False)
            result.outputs = [list(runs) for runs in threads]
            result.weights, result.inputs = dict(weights), inputs
        return result

    def sweep(self, cases: Sequence[Sequence[str]], *options: Any) -> "Swept":
        """Tries each list of patches alone, all in one process through the C ABI."""
        patches, out = self.folder / "patches.txt", self.folder / "swept.pt"
        patches.write_text("".join("\t".join(case) + "\n" for case in cases))
        out.unlink(missing_ok=True)
        run_process([PROGRAMS / "sweep", *self.args(), patches, out, *options]).ok()
        results, bare, weights, inputs = torch.load(out, weights_only=False)
        assert len(results) == len(cases)
        return Swept(list(results), bare, dict(weights), inputs)


@dataclass
class Swept:
    """Per case (True, output) or (False, message); then the bare output, weights and inputs after all cases."""

    results: list[tuple[bool, Any]]
    bare: Any
    weights: dict[str, torch.Tensor]
    inputs: tuple[Any, ...]


KINDS = ["scripted", "traced"]


def save(module: torch.nn.Module, inputs: tuple[Any, ...], folder: Path, kind: str = "scripted") -> Saved:
    """Exports an eager module: scripted, traced, or frozen (after scripting)."""
    module = module.eval()
    with torch.no_grad():
        script = torch.jit.trace(module, inputs) if kind == "traced" else torch.jit.script(module)
        if kind == "frozen":
            script = torch.jit.freeze(script)
    folder.mkdir(parents=True, exist_ok=True)
    script.save(str(folder / "model.pt"))
    torch.save(inputs, folder / "inputs.pt")
    return Saved(folder / "model.pt", folder / "inputs.pt", folder)


def same_bits(a: Any, b: Any) -> bool:
    """Equal in type, shape, dtype and every bit, all the way into containers (which the runner turns into tuples)."""
    if isinstance(a, torch.Tensor):
        if not isinstance(b, torch.Tensor) or a.dtype != b.dtype or a.shape != b.shape:
            return False
        a, b = a.detach().contiguous().reshape(-1), b.detach().contiguous().reshape(-1)
        return torch.equal(a.view(torch.uint8), b.view(torch.uint8))
    if isinstance(a, dict):
        a = tuple(a.items())
    if isinstance(b, dict):
        b = tuple(b.items())
    if isinstance(a, (tuple, list)):
        return isinstance(b, (tuple, list)) and len(a) == len(b) and all(same_bits(x, y) for x, y in zip(a, b))
    return type(a) is type(b) and a == b


def weights_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in [*module.named_parameters(), *module.named_buffers()]}


# --- trees -----------------------------------------------------------------------------------------------------------

_LINE = re.compile(r"^(?P<indent>(?:│ |  )*)(?:├─|└─)(?P<name>[^:]+): (?P<kind>.+)$")
_CONTAINER = re.compile(r"^(tuple|list|dict)\(\d+\)$")


def trees_in(text: str) -> list[str]:
    """The trees in a program's stderr, which holds other lines too."""
    trees: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("<root>: "):
            trees.append([line])
            inside = True
        elif inside and _LINE.match(line):
            trees[-1].append(line)
        else:
            inside = False
    return ["".join(line + "\n" for line in tree) for tree in trees]


def tree_in(text: str) -> str:
    trees = trees_in(text)
    assert len(trees) == 1, f"{len(trees)} trees in:\n{text}"
    return trees[0]


def nodes(tree: str) -> list[tuple[str, str]]:
    """(path, kind) of every node below the root, in order; an element of a container is written behind a `|`."""
    stack: list[tuple[str, bool]] = [("", False)]  # path and whether it lies in a container, by depth
    found = []
    for line in tree.splitlines()[1:]:
        match = _LINE.match(line)
        assert match, line
        depth = len(match["indent"]) // 2
        del stack[depth + 1 :]
        parent, digging = stack[-1]
        container = bool(_CONTAINER.match(match["kind"]))
        in_container = bool(parent) and digging
        joint = "" if not parent else ("." if not in_container or "|" in parent else "|")
        path = parent + joint + match["name"]
        stack.append((path, container or in_container))
        found.append((path, match["kind"]))
    return found


def leaves(tree: str) -> list[tuple[str, str]]:
    return [(p, k) for p, k in nodes(tree) if not k.startswith("Graph(") and not _CONTAINER.match(k)]


def shape_text(value: torch.Tensor) -> str:
    return f"Tensor({', '.join(map(str, value.shape))})"
