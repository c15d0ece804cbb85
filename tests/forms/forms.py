"""The forms of a model, what each shares with the eager one, and what a zero does in it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
import torch._inductor
from torch import Tensor, nn

import nodes
from architectures import MODELS
from cpp_models import state
from held import Holder
from libgraphpatch import Patch, PatchableGraph, ZeroPatch, _taps
from libgraphpatch._replay import Replay
from libgraphpatch.packages import name_package
from support import GRAPHPATCH, PROGRAMS, run_process

# The path of the model inside a module that calls it, where the form itself cannot be the root.
HELD = "model."


def tensors(result: Any) -> list[Tensor]:
    return [result.clone()] if isinstance(result, Tensor) else [tensor.clone() for tensor in result]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    """Whether two results are the same bit for bit."""
    return len(one) == len(other) and all(
        torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in zip(one, other)
    )


def largest(result: list[Tensor]) -> float:
    return max(tensor.abs().max().item() for tensor in result)


def distance(one: list[Tensor], other: list[Tensor]) -> float:
    """The largest distance of two elements; NaN is the same as NaN, and as nothing else."""
    return max(_distance(a, b) for a, b in zip(one, other, strict=True))


def _distance(one: Tensor, other: Tensor) -> float:
    alike = (one == other) | (one.isnan() & other.isnan())
    apart = (one - other).abs().nan_to_num(nan=float("inf"))
    return apart.masked_fill(alike, 0.0).max().item()


def operations(pg: PatchableGraph) -> dict[str, list[str]]:
    """The paths of all operations, each with those of its tensors."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "graph.json"
        pg.save_graph(file)
        found = [node for node in nodes.read(file).walk() if node.kind == "op"]
    return {node.path: [leaf.path for leaf in node.leaves if leaf.is_tensor] for node in found}


class Form:
    """One form of a model.

    Attributes:
        shared: The paths of eager's operations that it has.
        bare: Its result without patches.
        exact: Whether it computes by the same arithmetic as the eager model, so that results agree bit for bit.
    """

    exact = True

    def __init__(self, paths: set[str], eager: Mapping[str, list[str]], bare: list[Tensor]) -> None:
        self.shared = [path for path in eager if path in paths]
        self.bare = bare

    def zeroed(self, leaves: list[str]) -> list[Tensor]:
        """The result with zero at these values."""
        raise NotImplementedError


class Inside(Form):
    """A form in this process."""

    def __init__(self, module: nn.Module, model: Model, before: str = HELD) -> None:
        self._x = model.x
        self._pg = PatchableGraph(module, model.x)
        self._before = before if isinstance(module, Holder) else ""
        paths = {path.removeprefix(self._before) for path in operations(self._pg)}
        super().__init__(paths, model.operations, tensors(module(model.x)))

    def zeroed(self, leaves: list[str]) -> list[Tensor]:
        zeros: dict[str, Patch[Any]] = {self._before + leaf: ZeroPatch() for leaf in leaves}
        with self._pg.patch(zeros, on_missing="raise"):
            return tensors(self._pg(self._x))


class Tapped(Inside):
    """Compiled code with taps at all values. It shares those operations whose values have a tap."""

    exact = False

    def __init__(self, module: nn.Module, model: Model) -> None:
        super().__init__(module, model)
        with _at_once() as replayed:
            self.shared = [path for path in self.shared if self._is_tapped(model.operations[path], replayed)]

    def _is_tapped(self, leaves: list[str], replayed: list[Replay]) -> bool:
        replayed.clear()
        self.zeroed(leaves)
        return not replayed

    def zeroed(self, leaves: list[str]) -> list[Tensor]:
        with _at_once():
            return super().zeroed(leaves)


class Program(Form):
    """The C++ program, under `graphpatch run`."""

    def __init__(self, model: Model) -> None:
        self._folder = tempfile.TemporaryDirectory()
        torch.save(state(model.module, model.x), self._file("state.pt"))
        bare = self._run("--graph", self._file("graph.json"))
        paths = {node.path for node in nodes.read(self._file("graph.json")).walk() if node.kind == "op"}
        super().__init__(paths, model.operations, bare)

    def _file(self, name: str) -> Path:
        return Path(self._folder.name) / name

    def _run(self, *options: Any) -> list[Tensor]:
        program = [PROGRAMS / "cpp_transformer", self._file("state.pt"), self._file("out.pt")]
        run_process([GRAPHPATCH, "run", *options, "--", *program]).ok()
        bare, *_ = torch.load(self._file("out.pt"))
        return [bare]

    def zeroed(self, leaves: list[str]) -> list[Tensor]:
        return self._run(*(f"--patch={leaf}=zero" for leaf in leaves))


@contextlib.contextmanager
def _at_once() -> Iterator[list[Replay]]:
    """Has graphs compiled with taps at all values as soon as one is patched. Gives the list of graphs that are run
    operation by operation nevertheless."""
    replayed: list[Replay] = []
    before, run = (_taps.PATIENCE, _taps._ENOUGH), Replay.run

    def counted(self: Replay) -> Any:
        if type(self) is Replay:
            replayed.append(self)
        return run(self)

    _taps.PATIENCE, _taps._ENOUGH, Replay.run = 0.0, 1, counted
    try:
        yield replayed
    finally:
        (_taps.PATIENCE, _taps._ENOUGH), Replay.run = before, run


def _compiled(model: Model) -> Any:
    """The model's compiled form. torch.compile leaves a model with an LSTM alone as a whole, unless told otherwise."""
    torch._dynamo.reset()
    torch._dynamo.config.allow_rnn = True
    return torch.compile(model.module, backend=os.environ.get("COMPILER", "inductor"), fullgraph=True)


def _one_by_one(model: Model) -> Form:
    _taps.PATIENCE = float("inf")  # compiling with taps has a form of its own
    return Inside(_compiled(model), model)


def _package(model: Model) -> Form:
    program = torch.export.export(model.module, (model.x,))
    with tempfile.TemporaryDirectory() as folder:
        file = torch._inductor.aoti_compile_and_package(program, package_path=f"{folder}/model.pt2")
        named = f"{folder}/named.pt2"
        names = name_package(program, file, model.x, output=named).names
        form = Inside(Holder(torch._inductor.aoti_load_package(named)), model, "aoti_model.")
    form.shared = [path for path in form.shared if path in names]
    form.exact = False
    return form


class Model:
    """A model in eager form, its input, and the paths of its operations with those of their tensors."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.module, self.x = MODELS[name]()
        self.eager = PatchableGraph(self.module, self.x)
        self.operations = operations(self.eager)
        self.bare = tensors(self.module(self.x))
        self._zeroed: dict[str, list[Tensor]] = {}

    def zeroed(self, path: str) -> list[Tensor]:
        if path not in self._zeroed:
            with self.eager.patch({leaf: ZeroPatch() for leaf in self.operations[path]}, on_missing="raise"):
                self._zeroed[path] = tensors(self.eager(self.x))
        return self._zeroed[path]

    def has(self, form: str) -> bool:
        """Whether there is this form: only one of the models is also a program in C++."""
        return form != "C++" or self.name == "GPT"


FORMS: dict[str, Callable[[Model], Form]] = {
    "TorchScript": lambda model: Inside(Holder(torch.jit.script(model.module)), model),
    "compiled": _one_by_one,
    "taps": lambda model: Tapped(_compiled(model), model),
    "exported": lambda model: Inside(torch.export.export(model.module, (model.x,)).module(), model),
    "AOTInductor": _package,
    "C++": Program,
}
