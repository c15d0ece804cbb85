"""A patch that no run has reached is reported when its block ends."""

from __future__ import annotations

import contextlib
import inspect
import threading
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, MissingPatchWarning, PatchableGraph, PatchError, ProbePatch, ZeroPatch


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(2, 2)
        self.extra = nn.Linear(2, 2)

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def first_weight(self) -> Tensor:
        return self.encoder.weight[0] * 2

    def forward(self, x: Tensor, more: bool = False) -> Tensor:
        x = self.encode(x)
        return self.extra(x) if more else x


@pytest.fixture
def pg() -> PatchableGraph:
    pg = PatchableGraph(Net(), torch.ones(1, 2))
    pg.record(torch.ones(1, 2), more=True)
    return pg


@pytest.fixture
def silent() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


X = torch.ones(1, 2)


def test_a_node_that_no_run_came_by(pg: PatchableGraph) -> None:
    patches = {"extra.output": [ZeroPatch(), ProbePatch()], "encoder.output": ZeroPatch()}
    with pytest.warns(MissingPatchWarning, match="patches never matched: extra.output: the calls of Net") as told:
        with pg.patch(patches):
            pg(X)
    assert len(told) == 1 and told[0].filename == __file__


def test_a_method_that_calls_no_module(pg: PatchableGraph) -> None:
    with pytest.warns(MissingPatchWarning, match="encoder.output: no call of Net or of a module in it began"):
        with pg.patch({"encoder.output": ZeroPatch()}):
            assert pg.first_weight().any()


@pytest.mark.usefixtures("silent")
def test_patches_that_matched_say_nothing(pg: PatchableGraph) -> None:
    with pg.patch({"encoder.output": ZeroPatch()}):
        with pg.patch({"extra.output": AddPatch(value=1.0)}):
            pg(X, more=True)
    with pg.patch({"encoder.output": ZeroPatch(slice=(9,))}, on_error="skip"):
        pg(X)
    with pg.patch({"extra.output": ZeroPatch()}, on_missing="ignore"):
        pg(X)


def test_it_can_be_an_error(pg: PatchableGraph) -> None:
    bare = pg(X)
    with pytest.raises(PatchError, match="a patch never matched: extra.output"):
        with pg.patch({"extra.output": ZeroPatch()}, on_missing="raise"):
            pg(X)
    assert torch.equal(pg(X), bare)
    with pytest.raises(ValueError, match="on_missing"):
        pg.patch({"extra.output": ZeroPatch()}, on_missing="shout")


@pytest.mark.usefixtures("silent")
def test_an_exception_tells_more(pg: PatchableGraph) -> None:
    with pytest.raises(KeyError, match="theirs"):
        with pg.patch({"extra.output": ZeroPatch()}, on_missing="raise"):
            raise KeyError("theirs")


@pytest.mark.usefixtures("silent")
def test_a_run_that_the_patch_was_not_for(pg: PatchableGraph) -> None:
    with pg.patch({"encoder.output": ZeroPatch()}, runs="1"):
        assert pg(X).any()
        assert not pg(X).any()


def test_a_block_that_is_entered_again_reports_for_itself(pg: PatchableGraph) -> None:
    block = pg.patch({"encoder.output": ZeroPatch()})
    with block:
        pg(X)
    with pytest.warns(MissingPatchWarning):
        with block:
            pass


@pytest.mark.usefixtures("silent")
def test_forward_is_a_call(pg: PatchableGraph) -> None:
    """A fault was once that `pg.forward(x)` began no run, so that no patch held."""
    with pg.patch({"encoder.output": ZeroPatch()}):
        assert not pg.forward(X).any()
    assert torch.equal(pg.forward(X, more=True), pg.module(X, more=True))
    assert list(inspect.signature(pg.forward).parameters) == ["x", "more"]


class Writes(nn.Module):
    """Writes into buffers, and reads one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(2, 3))
        self.register_buffer("steps", torch.zeros(()))
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        self.kept.copy_(x)
        self.steps.add_(1)
        return self.norm(x) * self.steps


@pytest.mark.parametrize("path", ["kept", "norm.running_mean", "norm.num_batches_tracked"])
def test_a_buffer_that_is_only_written_to(path: str) -> None:
    module = Writes()
    pg = PatchableGraph(module, x := torch.randn(2, 3))
    said = rf"patch never matched: {path}: .* No operation read {path}: .* what the operation that writes returns"
    with pytest.warns(MissingPatchWarning, match=said), pg.patch({path: AddPatch(value=1)}):
        pg(x)
    assert torch.equal(module.kept, x)


def test_a_buffer_that_is_written_to_and_read() -> None:
    module = Writes()
    pg = PatchableGraph(module, x := torch.randn(2, 3))
    module.steps.zero_()
    bare = pg(x)
    module.steps.zero_()
    with pg.patch({"steps": AddPatch(value=1)}, on_missing="raise"):
        assert torch.equal(pg(x), bare * 2)
    assert module.steps == 1


class Gate:
    """The middle of one call, in which the call waits until the test lets it go on."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.reached.set()
        assert self.opened.wait(timeout=100)


class Gated(Net):
    def __init__(self) -> None:
        super().__init__()
        self.of_thread = threading.local()

    def forward(self, x: Tensor, more: bool = False) -> Tensor:
        x = self.encoder(x)
        if gate := getattr(self.of_thread, "gate", None):
            gate.wait()
        return self.extra(x) if more else x


@contextlib.contextmanager
def under_way(pg: PatchableGraph, module: Gated, more: bool) -> Iterator[None]:
    """A run on another thread, which has called the encoder, and ends when this does."""
    gate = Gate()

    def call() -> None:
        module.of_thread.gate = gate
        pg(X, more=more)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        assert gate.reached.wait(timeout=100)
        yield
    finally:
        gate.opened.set()
        thread.join()


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("on_missing", ["warn", "raise"])
def test_a_run_that_reaches_the_node_after_the_block_has_ended(on_missing: str) -> None:
    module = Gated()
    pg = PatchableGraph(module, X, more=True)
    probe = ProbePatch()
    with contextlib.ExitStack() as run:
        with pg.patch({"extra.output": probe}, on_missing=on_missing):
            run.enter_context(under_way(pg, module, more=True))
    assert torch.equal(probe.activation, module.extra(module.encoder(X)))


def test_what_no_run_reaches_is_told_when_the_last_run_that_began_in_the_block_ends() -> None:
    module = Gated()
    pg = PatchableGraph(module, X, more=True)
    first, last, later = contextlib.ExitStack(), contextlib.ExitStack(), contextlib.ExitStack()
    with warnings.catch_warnings(record=True) as told:
        with pg.patch({"extra.output": ZeroPatch(), "encoder.output": ZeroPatch()}):
            last.enter_context(under_way(pg, module, more=False))
            first.enter_context(under_way(pg, module, more=False))
        later.enter_context(under_way(pg, module, more=False))  # has no patches
        first.close()
        assert not told
        last.close()
        texts = [str(warning.message) for warning in told]
        later.close()
    of = "the runs of Gated that began in the block did not come by there"
    assert texts == [f"a patch never matched: extra.output: {of}"] and len(told) == 1
    assert told[0].filename == __file__


def test_runs_that_began_before_the_block_are_not_waited_for() -> None:
    module = Gated()
    pg = PatchableGraph(module, X, more=True)
    with under_way(pg, module, more=True):
        with pytest.warns(MissingPatchWarning, match="a patch never matched: extra.output: the calls of Gated"):
            with pg.patch({"extra.output": ZeroPatch()}):
                pg(X)
