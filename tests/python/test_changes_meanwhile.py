"""A run has the patches that held when it began, whatever other threads open and close until it ends."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from libgraphpatch import AddPatch, CustomPatch, Patch, PatchableGraph, ProbePatch, RecordPatch, ReplacePatch, ZeroPatch
from libgraphpatch._captured import Captured
from libgraphpatch._watched import watched
from libgraphpatch.flow import SkipPatch
from nets import Part, same

TIMEOUT = 600  # after so many seconds a thread counts as hung
X = torch.tensor([[1.0, -2.0, 3.0], [0.5, 0.25, -1.0]])


class Gate(nn.Module):
    """Holds the run that comes by, once it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.opened = threading.Event(), threading.Event()
        self.holds = False

    def forward(self, x: Tensor) -> Tensor:
        if self.holds:
            self.holds = False
            self.reached.set()
            assert self.opened.wait(TIMEOUT)
        return x


class Whole(nn.Module):
    """What comes behind the gate is computed when a block has been opened or closed."""

    def __init__(self, made: Callable[[nn.Module], Any] = lambda part: part) -> None:
        super().__init__()
        self.gate, self.part, self.last = Gate(), made(Part()), made(Part())

    def forward(self, x: Tensor) -> Tensor:
        y = self.gate(x * 2)
        return torch.exp(self.last(self.part(y))) + y


class Direct(Whole):
    def forward(self, x: Tensor) -> Tensor:
        y = self.gate(x * 2)
        return torch.exp(self.last.forward(self.part.forward(y))) + y


class Checkpointed(Whole):
    def forward(self, x: Tensor) -> Tensor:
        y = self.gate(x * 2)
        again: Tensor = checkpoint(lambda value: self.last(self.part(value)), y, use_reentrant=False)
        return torch.exp(again) + y


@contextmanager
def held(model: Whole, call: Callable[[], Any]) -> Iterator[Future[Any]]:
    """The call, on another thread; inside the block, it waits at the gate."""
    model.gate.holds = True
    model.gate.reached.clear()
    model.gate.opened.clear()
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(call)
        try:
            assert model.gate.reached.wait(TIMEOUT) or result.result(0) is None
            yield result
        finally:
            model.gate.opened.set()


def twice(value: Tensor) -> Tensor:
    return value * 2


PATCHES: dict[str, dict[str, Callable[[], Patch[Any]]]] = {
    "output": {"part.output": ZeroPatch},
    "input": {"last.x": lambda: AddPatch(value=1.0)},
    "inner operation": {"last.tanh": lambda: ReplacePatch(value=0.25)},
    "operation of the root": {"exp": ZeroPatch},
    "parameter": {"last.linear.weight": ZeroPatch},
    "root": {"part.output": lambda: ReplacePatch(value=2.0), "output": lambda: CustomPatch(custom_op=lambda y: y + 1)},
    "function": {"part.tanh": lambda: CustomPatch(custom_op=twice), "last.linear.output": ZeroPatch},
    "rows": {"part.output": lambda: ZeroPatch(rows=1)},
    "skipped": {"part": lambda: SkipPatch(value="x"), "last.output": lambda: AddPatch(value=1.0)},
}
FORMS: dict[str, Callable[[], Whole]] = {
    "modules": Whole,
    "checkpoint": Checkpointed,
    "scripted": lambda: Whole(torch.jit.script),
    "compiled": lambda: Whole(partial(torch.compile, backend="eager")),
}


def keeps_its_patches(model: Whole, make: dict[str, Callable[[], Patch[Any]]]) -> None:
    def call() -> Any:
        with torch.no_grad():
            return pg(X)

    pg = PatchableGraph(model, X)
    patches = {path: make() for path, make in make.items()}
    bare = call()
    with pg.patch(patches):
        expected = call()
    assert not same(expected, bare)
    block = pg.patch(patches, on_missing="ignore")
    block.__enter__()
    with held(model, call) as result:
        block.__exit__()
        assert same(call(), bare)
    assert same(result.result(TIMEOUT), expected)
    assert same(call(), bare)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", PATCHES)
def test_a_run_keeps_the_patches_of_a_block_that_ends_meanwhile(kind: str, form: str) -> None:
    keeps_its_patches(FORMS[form](), PATCHES[kind])


@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.parametrize("kind", PATCHES)
def test_so_do_direct_calls(kind: str) -> None:
    keeps_its_patches(Direct(), PATCHES[kind])


@pytest.mark.parametrize("kind", PATCHES)
def test_a_run_has_nothing_of_a_block_that_begins_meanwhile(kind: str) -> None:
    model = Whole()
    pg = PatchableGraph(model, X)
    bare = pg(X)
    with held(model, lambda: pg(X)) as result:
        block = pg.patch({path: make() for path, make in PATCHES[kind].items()}, on_missing="ignore")
        with block:
            patched = pg(X)
            model.gate.opened.set()
            assert same(result.result(TIMEOUT), bare)
    assert not same(patched, bare)


def test_a_run_with_patches_has_nothing_of_a_block_that_begins_meanwhile() -> None:
    model = Whole()
    pg = PatchableGraph(model, X)
    with pg.patch({"part.output": ZeroPatch()}):
        expected = pg(X)
        with held(model, lambda: pg(X)) as result, pg.patch({"exp": ZeroPatch(), "part": SkipPatch(value="x")}):
            assert not same(pg(X), expected)
            model.gate.opened.set()
            assert same(result.result(TIMEOUT), expected)


def test_values_of_a_run_that_outlives_its_block_are_kept() -> None:
    model = Whole()
    pg = PatchableGraph(model, X)
    probe, record = ProbePatch(), RecordPatch()
    with pg.patch({"exp": probe, "last.output": record}):
        pg(X)
    expected = probe.activation, record.activations[-1]
    probe, record = ProbePatch(), RecordPatch()
    block = pg.patch({"exp": probe, "last.output": record}, on_missing="ignore")
    block.__enter__()
    with held(model, lambda: pg(X)) as result:
        block.__exit__()
    result.result(TIMEOUT)
    assert same(probe.activation, expected[0]) and same(record.activations[-1], expected[1])


def test_a_run_outlives_its_patchable_graph() -> None:
    model = Whole()
    with PatchableGraph(model, X).patch({"exp": ZeroPatch(), "last.output": AddPatch(value=1.0)}):
        expected = model(X)
    graphs = [PatchableGraph(model, X)]
    block = graphs[0].patch({"exp": ZeroPatch(), "last.output": AddPatch(value=1.0)}, on_missing="ignore")
    block.__enter__()
    with held(model, lambda: model(X)) as result:
        block.__exit__()
        graphs.clear()
        del block
        gc.collect()
    assert same(result.result(TIMEOUT), expected)


ASSIGNED: dict[str, tuple[str, Callable[[], Patch[Any]], str, Any]] = {
    "value": ("part.output", lambda: AddPatch(value=1.0), "value", 7.0),
    "value of some rows": ("part.output", lambda: AddPatch(value=1.0, rows=1), "value", 7.0),
    "rows": ("part.output", lambda: AddPatch(value=1.0, rows=1), "rows", 0),
    "positions": ("part.output", lambda: ZeroPatch(positions=1), "positions", 0),
    "slice of a function": (
        "part.tanh",
        lambda: CustomPatch(custom_op=twice, slice=(..., 1), rows=1),
        "slice",
        (..., 0),
    ),
    "skipped with another value": ("part", lambda: SkipPatch(value=torch.zeros(2, 3)), "value", torch.ones(2, 3)),
    "skipped with an input": ("part", lambda: SkipPatch(value=torch.zeros(2, 3)), "value", "x"),
    "skipped without an input": ("part", lambda: SkipPatch(value="x"), "value", torch.zeros(2, 3)),
}


@pytest.mark.parametrize("case", ASSIGNED)
def test_what_is_assigned_to_a_patch_meanwhile_holds_from_the_next_run_on(case: str) -> None:
    path, make, name, value = ASSIGNED[case]
    model = Whole()
    pg, patch = PatchableGraph(model, X), make()
    with pg.patch({path: patch}):
        before = pg(X)
        with held(model, lambda: pg(X)) as result:
            setattr(patch, name, value)
        assert same(result.result(TIMEOUT), before)
        after = pg(X)
    assert not same(after, before)
    with pg.patch({path: patch}):
        assert same(pg(X), after)


def test_the_gradient_of_a_run_has_the_patch_that_the_run_had() -> None:
    model, x = Whole(), X.clone().requires_grad_()
    pg, patch = PatchableGraph(model, X), AddPatch(value=1.0, on="grad")
    with pg.patch({"part.output": patch}):
        (expected,) = torch.autograd.grad(pg(x).sum(), x)
        loss = pg(x).sum()
        patch.value = 5.0
        (gradient,) = torch.autograd.grad(loss, x)
        (other,) = torch.autograd.grad(pg(x).sum(), x)
    assert same(gradient, expected) and not same(other, expected)


class OpensBetween:
    """Stands for the lock that is held while a run begins: a block opens right before that."""

    def __init__(self, lock: Any, block: Any) -> None:
        self.lock, self.block = lock, block

    def __enter__(self) -> None:
        if self.block is not None:
            block, self.block = self.block, None
            block.__enter__()
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


@pytest.mark.parametrize("limit", [{"positions": 1}, {"positions": "prompt"}, {"steps": 0}, {"rows": 1}])
@pytest.mark.parametrize("direct", [True, False])
def test_a_run_that_begins_right_after_a_limited_block_opens_is_located(
    limit: dict[str, Any], direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Whole()
    pg = PatchableGraph(model, X)
    patches = {"last.output": ZeroPatch(**limit)}
    with pg.patch(patches):
        expected = pg(X)
    root = pg._recorder.root
    if not direct:
        monkeypatch.setattr(root, "is_direct", lambda _module: False)
    block = pg.patch(patches)
    with pg.patch({"part.output": ProbePatch()}):
        monkeypatch.setattr(root, "beginning", OpensBetween(root.beginning, block))
        assert same(pg(X), expected)
        block.__exit__()


class Branch(Whole):
    other = False

    def forward(self, x: Tensor) -> Tensor:
        y = self.gate(x * 2)
        return torch.sin(self.last(y)) if self.other else y


def test_a_graph_has_the_whole_of_a_run_that_outlives_its_recording() -> None:
    model = Branch()
    pg = PatchableGraph(model, X)
    model.other = True
    recording = pg.recording()
    recording.__enter__()
    with held(model, lambda: pg(X)) as result:
        recording.__exit__(None, None, None)
    result.result(TIMEOUT)
    assert "sin" in pg.graph and "last.linear.weight" in pg.graph
    with pg.patch({"last.tanh": ZeroPatch()}):
        assert not pg(X).any()


def test_a_block_of_another_graph_that_ends_meanwhile_takes_nothing_away() -> None:
    model, other = Whole(), PatchableGraph(Part(), X)
    pg = PatchableGraph(model, X)
    block = other.patch({"tanh": ZeroPatch()}, on_missing="ignore")
    block.__enter__()
    with pg.patch({"exp": ZeroPatch(), "last.output": ZeroPatch()}):
        expected = pg(X)
        with held(model, lambda: pg(X)) as result:
            block.__exit__()
        assert same(result.result(TIMEOUT), expected)


@pytest.mark.parametrize("form", FORMS)
def test_a_run_keeps_the_parameters_of_its_thread_while_others_run_without(form: str) -> None:
    model = FORMS[form]()

    def call() -> Any:
        with torch.no_grad():
            return pg(X)

    def patched() -> Any:
        with pg.patch({"last.linear.weight": ZeroPatch()}, this_thread=True):
            return call()

    pg = PatchableGraph(model, X)
    bare, expected = call(), patched()
    assert not same(bare, expected)
    with held(model, patched) as result:
        assert same(call(), bare)
    assert same(result.result(TIMEOUT), expected)


def test_afterwards_no_call_is_looked_at() -> None:
    model = Whole()
    pg = PatchableGraph(model, X)
    block = pg.patch({"exp": ZeroPatch()}, on_missing="ignore")
    gc.collect()
    before = watched.any
    block.__enter__()
    with held(model, lambda: pg(X)) as result:
        block.__exit__()
        assert watched.any
    result.result(TIMEOUT)
    assert watched.any == before


@pytest.mark.parametrize("kind", PATCHES)
def test_a_checkpoint_is_computed_again_after_the_block_as_in_it(kind: str) -> None:
    model = Checkpointed()
    pg, x = PatchableGraph(model, X), X.clone().requires_grad_()
    patches = {path: make() for path, make in PATCHES[kind].items()}
    with pg.patch(patches):
        (expected,) = torch.autograd.grad(pg(x).square().sum(), x)
        loss = pg(x).square().sum()
    (gradient,) = torch.autograd.grad(loss, x)
    assert same(gradient, expected)
    del loss
    assert "forward" not in vars(model.part)


def test_a_module_that_was_replaced_before_the_first_run_is_patched_in_it() -> None:
    model = Whole()
    pg = PatchableGraph(model, X)
    with pg.patch({"exp": ProbePatch()}):
        pg(X)  # asks for no parameters
    with pg.patch({"last.linear.weight": ZeroPatch()}):
        model.last = Part()
        y = pg.graph and model.part(X * 2)
        expected = torch.exp(torch.tanh(model.last.linear.bias).expand_as(y)) + X * 2
        assert same(pg(X), expected)


def test_what_is_wanted_of_a_run_is_not_what_is_wanted_of_another() -> None:
    model = Whole(partial(torch.compile, backend="eager"))
    pg = PatchableGraph(model, X)
    patches = {"last.linear.weight": ZeroPatch(), "last.tanh": AddPatch(value=1.0)}

    def call() -> Any:
        with torch.no_grad():
            return pg(X)

    with pg.patch(patches):
        expected = [call() for _ in range(4)][0]
    block = pg.patch(patches, on_missing="ignore")
    block.__enter__()
    with held(model, call) as result:
        block.__exit__()
        with pg.patch({"last.tanh": AddPatch(value=1.0)}):
            for _ in range(4):
                call()  # the compiled code gets taps
    assert same(result.result(TIMEOUT), expected)


def test_a_block_that_opens_while_a_compiled_function_is_looked_at(
    nothing_compiled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs of such a call have the patches of the block, or the call has none of them."""
    part = Part()
    function = torch.compile(lambda x: torch.exp(part(x)), backend="eager")
    expected = torch.exp(part(X) + 1)
    pg = PatchableGraph(part, X)
    patch = AddPatch(value=1.0)
    looks = Captured._look

    with pg.patch({"output": ProbePatch()}), ExitStack() as later, ThreadPoolExecutor(1) as pool:
        function(X)

        def look(self: Captured, *args: Any) -> None:
            looks(self, *args)
            block = pg.patch({"output": patch})
            pool.submit(later.enter_context, block).result(TIMEOUT)

        monkeypatch.setattr(Captured, "_look", look)
        assert same(function(X), expected)
