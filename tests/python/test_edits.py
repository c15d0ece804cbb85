"""Patches as objects: applied by hand, changed inside a block, used as decorators, held without a block, counted."""

from __future__ import annotations

import copy
import pickle
import threading
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import (
    AddPatch,
    Counts,
    CustomPatch,
    MissingPatchWarning,
    PatchableGraph,
    PatchError,
    ProbePatch,
    RecordPatch,
    ReplacePatch,
    ZeroPatch,
)
from nets import Net

X = torch.randn(3, 4)


@pytest.fixture
def pg() -> PatchableGraph:
    return PatchableGraph(Net(), X)


# --- by hand ---


@pytest.mark.parametrize("slice", [None, 1, (..., 0), [1, ...], (slice(None), [0, 2]), [(0, 2), slice(1, 3)]], ids=str)
def test_a_patch_applies_itself(pg: PatchableGraph, slice: Any) -> None:
    for patch in (ZeroPatch(slice=slice), AddPatch(value=2.5, slice=slice), ReplacePatch(value=-1.0, slice=slice)):
        with pg.patch({"blocks_0.up.output": [before := ProbePatch(), patch, after := ProbePatch()]}):
            pg(X)
        for applied in (patch(before.activation.clone()), patch.op(before.activation.clone())):
            assert torch.equal(applied, after.activation)


def test_a_patch_applies_itself_to_numbers() -> None:
    assert (
        ZeroPatch()(3) == 0 and ZeroPatch()(2.5) == 0.0 and AddPatch(value=2)(3) == 5 and ReplacePatch(value=4)(3) == 4
    )
    with pytest.raises(IndexError):
        ZeroPatch(slice=9)(torch.ones(2))


def test_a_class_with_an_operation_of_its_own(pg: PatchableGraph) -> None:
    @dataclass(kw_only=True)
    class Negated(ReplacePatch):
        value: float = 0.0

        def op(self, original_output: Any) -> Any:
            return super().op(-original_output)

    class Doubled(ZeroPatch):
        def __call__(self, target: Any) -> Any:
            return target * 2

    for patch, expected in (
        (Negated(slice=0, value=7.0), lambda t: (-t).index_fill(0, torch.tensor(0), 7.0)),
        (Doubled(), lambda t: t * 2),
    ):
        with pg.patch({"blocks_0.up.output": [before := ProbePatch(), patch, after := ProbePatch()]}):
            pg(X)
        assert torch.equal(after.activation, expected(before.activation))


# --- changed while it holds ---


def test_a_value_that_changes_in_a_block_holds_from_the_next_run(pg: PatchableGraph) -> None:
    patch, record = AddPatch(value=0.0), RecordPatch()
    with pg.patch({"blocks_0.up.output": [patch, record]}) as patched:
        for value in (0.0, 1.5, torch.full((3, 1), -2.0)):
            patch.value = value
            pg(X)
        patch.slice = (..., slice(0, 1))
        pg(X)
    first = record.activations[0]
    for value, seen in zip((0.0, 1.5, -2.0), record.activations[:3], strict=True):
        assert torch.equal(seen, first + value)
    assert torch.equal(record.activations[3], AddPatch(value=-2.0, slice=(..., 0))(first.clone()))
    assert patched.counts["blocks_0.up.output"] == [Counts(4, 4, 0)] * 2


def test_a_change_keeps_the_order_of_blocks_and_the_count_of_runs(pg: PatchableGraph) -> None:
    outer = ReplacePatch(value=1.0)
    with pg.patch({"blocks_0.up.output": outer}, runs="1.."):
        pg(X)
        with pg.patch({"blocks_0.up.output": [AddPatch(value=1.0), probe := ProbePatch()]}):
            outer.value = 5.0
            pg(X)
    assert probe.activation.eq(6.0).all()


def test_what_cannot_be_is_refused_and_leaves_the_patch_as_it_was(pg: PatchableGraph) -> None:
    patch = AddPatch(value=1.0)
    with pg.patch({"blocks_0.up.output": [before := ProbePatch(), patch, after := ProbePatch()]}):
        with pytest.raises(ValueError):
            patch.value = "nothing"
        assert patch.value == 1.0
        pg(X)
    assert torch.equal(after.activation, before.activation + 1.0)
    patch.value = "anything"  # not checked, because no block holds the patch


def test_a_function_changes_a_patch_of_a_later_node(pg: PatchableGraph) -> None:
    """A change that is made during a run takes effect in the next run."""
    later = AddPatch(value=0.0)

    def change(value: Tensor) -> Tensor:
        later.value = 3.0
        return value

    patches = {
        "blocks_0.up.output": CustomPatch(custom_op=change),
        "blocks_1.output": [before := ProbePatch(), later, after := ProbePatch()],
    }
    with pg.patch(patches) as patched:
        pg(X)
        assert torch.equal(before.activation, after.activation)
        pg(X)
        assert torch.equal(before.activation + 3.0, after.activation)
    assert all(counts == Counts(2, 2, 0) for path in patches for counts in patched.counts[path])


def test_threads_change_a_patch_while_others_run(pg: PatchableGraph) -> None:
    patch, done = ReplacePatch(value=0.0), threading.Event()
    failures: list[BaseException] = []

    def change() -> None:
        try:
            for number in range(60):
                patch.value = float(number % 2)
        except BaseException as error:
            failures.append(error)
        finally:
            done.set()

    with pg.patch({"blocks_1.output": patch}) as patched:
        thread = threading.Thread(target=change)
        thread.start()
        runs = 0
        while not done.is_set() or runs < 5:
            output = pg(X)
            runs += 1
            assert output.eq(0.0).all() or output.eq(1.0).all()
        thread.join()
    assert not failures and patched.counts["blocks_1.output"] == [Counts(runs, runs, 0)]


def test_a_copy_of_a_held_patch_is_held_by_nobody(pg: PatchableGraph) -> None:
    patch = AddPatch(value=1.0, slice=0)
    with pg.patch({"blocks_0.up.output": patch}, on_missing="ignore"):
        copies = [copy.copy(patch), copy.deepcopy(patch), pickle.loads(pickle.dumps(patch))]
        assert all(each == patch and "_holders" not in vars(each) for each in copies)
        copies[0].value = "anything"


def test_a_patch_knows_where_in_a_container_it_stands() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            return x + 1, {"twice": x * 2}

    pg = PatchableGraph(Two(), X)
    patch = ZeroPatch()
    assert patch.path is None
    with pg.patch({"output|sub_1.twice": patch}, on_missing="ignore"):
        assert patch.path == "sub_1.twice"
    with pg.patch({"add": patch}, on_missing="ignore"):
        assert patch.path is None


# --- blocks ---


def test_a_block_is_a_decorator(pg: PatchableGraph) -> None:
    @pg.patch({"output": ZeroPatch()})
    def patched(x: Tensor) -> Tensor:
        """Says what it does."""
        return pg(x)

    assert not patched(X).any() and not patched(X).any() and pg(X).any()
    assert patched.__doc__ == "Says what it does."


def test_counts_during_and_after_a_block(pg: PatchableGraph) -> None:
    with pg.patch({"blocks_*.up.output": [ZeroPatch(), AddPatch(value=1.0, slice=9)]}, on_error="skip") as patched:
        assert patched.counts == {f"blocks_{number}.up.output": [Counts(0, 0, 0)] * 2 for number in (0, 1)}
        pg(X), pg(X)
        during = patched.counts
    assert patched.counts == during == {f"blocks_{n}.up.output": [Counts(2, 2, 0), Counts(2, 0, 2)] for n in (0, 1)}


def test_an_edit_holds_until_it_is_closed(pg: PatchableGraph) -> None:
    plain = pg(X)
    edit = pg.edit({"output": AddPatch(value=1.0)})
    assert torch.equal(pg(X), plain + 1.0) and torch.equal(pg.module(X), plain + 1.0) and edit.is_open
    with pg.edit({"output": AddPatch(value=2.0)}):
        assert torch.equal(pg(X), plain + 1.0 + 2.0)
    assert torch.equal(pg(X), plain + 1.0)
    edit.close(), edit.close()
    assert torch.equal(pg(X), plain) and not edit.is_open and edit.counts["output"] == [Counts(4, 4, 0)]


def test_edits_close_in_any_order(pg: PatchableGraph) -> None:
    plain = pg(X)
    one, two = pg.edit({"output": AddPatch(value=1.0)}), pg.edit({"output": ReplacePatch(value=5.0)})
    assert pg(X).eq(5.0).all()
    one.close()
    assert pg(X).eq(5.0).all()
    two.close()
    assert torch.equal(pg(X), plain)


def test_an_edit_that_no_run_reached_is_reported(pg: PatchableGraph) -> None:
    with pytest.warns(MissingPatchWarning, match="never matched: output"):
        pg.edit({"output": ZeroPatch()}).close()
    with pytest.raises(PatchError, match="never matched: output"):
        pg.edit({"output": ZeroPatch()}, on_missing="raise").close()
