"""Several threads at once, on one module."""

from collections.abc import Callable

import pytest

import models
import reference
from changes import outcome, zero
from support import PROGRAMS, Saved, run_process, same_bits

MODULE, (IDS,) = models.transformer()
PATH = "layers_0.mlp.gelu"


@pytest.mark.parametrize("late", [[], ["--late-threads"]], ids=["early", "late"])
def test_one_module_shared_by_four_threads(transformer: Callable[[str], Saved], late: list) -> None:
    saved = transformer("scripted")
    tree = saved.run().ok().tree
    result = saved.run("--threads", 4, "--runs", 20, *late).ok()
    # Four threads with eighty runs give the same graph as one run.
    assert result.tree == tree
    bare = saved.bare().ok().output
    assert all(same_bits(run, bare) for thread in result.outputs for run in thread)


def test_a_patch_holds_in_every_thread(transformer: Callable[[str], Saved]) -> None:
    changes = {PATH: [zero(0)]}
    expected = outcome(lambda: reference.transformer(reference.Taps(changes), MODULE, IDS))
    result = transformer("scripted").run("--threads", 4, "--runs", 20, patches=[f"{PATH}[0]=zero"]).ok()
    assert len(result.outputs) == 4 and all(len(thread) == 20 for thread in result.outputs)
    assert all(same_bits(run, expected) for thread in result.outputs for run in thread)


@pytest.mark.parametrize("option", [[], ["--record"], ["--reattach"]], ids=["patching", "recording too", "reattaching"])
def test_patches_change_while_others_run(transformer: Callable[[str], Saved], option: list) -> None:
    saved = transformer("scripted")
    result = run_process([PROGRAMS / "stress", *saved.args(), f"{PATH}=zero", *option]).ok()
    assert ", 0 neither" in result.stdout
