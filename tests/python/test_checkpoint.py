"""What is computed again in the backward pass is computed under the patches that held the first time."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from libgraphpatch import AddPatch, CustomPatch, PatchableGraph, ReplacePatch, ZeroPatch, _patch_function
from nets import Net, same

pytestmark = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")

PATCHES: dict[str, Any] = {
    "an operation": lambda: {"blocks_0.sigmoid": AddPatch(value=0.5, slice=(slice(None), 0))},
    "a function": lambda: {"blocks_1.up.output": CustomPatch(custom_op=lambda value: value * 3)},
    "an input": lambda: {"blocks_0.down.input": ZeroPatch(slice=0)},
    "weights": lambda: {"blocks_0.up.weight": ZeroPatch(slice=0), "blocks_1.mul": ReplacePatch(value=2.0, slice=1)},
}


def gradients(reentrant: bool | None, nested: bool, patch: Any, inside: bool) -> list[Tensor]:
    torch.manual_seed(1)
    net, x = Net(reentrant, nested), torch.randn(3, 4, requires_grad=True)
    pg = PatchableGraph(net, x)
    with pg.patch(patch()):
        y = pg(x)
        if inside:
            y.square().sum().backward()
    if not inside:
        y.square().sum().backward()
    return [y, x.grad, *[parameter.grad for parameter in net.parameters()]]  # type: ignore[list-item]


@pytest.mark.parametrize("inside", [True, False], ids=["inside the block", "after the block"])
@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", PATCHES)
def test_gradients_are_those_without_checkpoints(name: str, reentrant: bool, nested: bool, inside: bool) -> None:
    expected = gradients(None, False, PATCHES[name], True)
    assert all(map(same, gradients(reentrant, nested, PATCHES[name], inside), expected))


@pytest.mark.parametrize("reentrant", [True, False])
def test_the_tree_is_that_without_checkpoints(reentrant: bool) -> None:
    x = torch.randn(3, 4, requires_grad=True)
    assert repr(PatchableGraph(Net(reentrant), x).graph) == repr(PatchableGraph(Net(), x).graph)
    pg = PatchableGraph(Net(reentrant), x)
    pg.record(x).sum().backward()
    assert repr(pg.graph) == repr(PatchableGraph(Net(), x).graph)


def test_later_patches_do_not_reach_an_earlier_runs_backward() -> None:
    net, x = Net(False), torch.randn(3, 4, requires_grad=True)
    pg = PatchableGraph(net, x)
    y = pg(x)
    with pg.patch({"blocks_0.up.output": ZeroPatch()}):
        y.sum().backward()
    patched, x.grad = x.grad, None
    net(x).sum().backward()
    assert same(patched, x.grad)


def test_a_function_that_fails_the_second_time() -> None:
    calls = []

    def fails(value: Tensor) -> Tensor:
        calls.append(value)
        if len(calls) > 1:
            raise LookupError("the second time")
        return value * 2

    net, x = Net(False), torch.randn(3, 4, requires_grad=True)
    pg = PatchableGraph(net, x)
    with pg.patch({"blocks_0.sigmoid": CustomPatch(custom_op=fails)}):
        y = pg(x)
    with pytest.raises(LookupError, match="the second time"):
        y.sum().backward()
    with pg.patch({"output": ZeroPatch()}):
        assert not pg(x).any()


def test_sequential_checkpoints() -> None:
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.items = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh())

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint_sequential(self.items, 2, x, use_reentrant=False)

    module, x = Sequence(), torch.randn(3, 4, requires_grad=True)
    pg = PatchableGraph(module, x)
    with pg.patch({"items_0.output": AddPatch(value=1.0)}):
        y = pg(x)
    y.sum().backward()
    patched, x.grad = x.grad, None
    a, b, c, d = module.items
    d(c(b(a(x) + 1))).sum().backward()
    assert same(patched, x.grad)


def test_functions_live_as_long_as_they_may_be_called_again() -> None:
    gc.collect()
    before = len(_patch_function.functions)
    net, x = Net(False), torch.randn(3, 4, requires_grad=True)
    pg = PatchableGraph(net, x)
    with pg.patch({"blocks_0.output": CustomPatch(custom_op=torch.tanh)}):
        y = pg(x)
    assert len(_patch_function.functions) == before + 1
    y.sum().backward()
    del y
    gc.collect()
    assert len(_patch_function.functions) == before


@pytest.mark.parametrize("patched", [True, False])
def test_a_function_that_fails_the_first_time(patched: bool) -> None:
    """The contexts of a checkpoint see the same exception as without patches."""

    class Context:
        seen: Any = None

        def __enter__(self) -> None:
            pass

        def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
            Context.seen = kind

    class Checkpointed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.inner, x, use_reentrant=False, context_fn=lambda: (Context(), Context()))

        def inner(self, x: Tensor) -> Tensor:
            x = x.tanh()
            if fails:
                raise LookupError("the first time")
            return x

    fails, x = True, torch.randn(3, 4, requires_grad=True)
    module = Checkpointed()
    with pytest.raises(LookupError, match="the first time"):
        module(x)
    gc.collect()
    expected, fails = Context.seen, False
    pg = PatchableGraph(module, x)
    with pg.patch({"tanh": ZeroPatch(slice=0)} if patched else {}):
        fails = True
        with pytest.raises(LookupError, match="the first time"):
            pg(x)
        gc.collect()
        assert Context.seen is expected
        fails = False
        assert same(pg(x), x.tanh() * torch.tensor([[0.0 if patched else 1.0], [1.0], [1.0]]))


IMPORTED_BEFORE = """
import torch
from torch import nn
from torch.distributed._composable import checkpoint
from libgraphpatch import PatchableGraph, ZeroPatch
module, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh()), torch.randn(3, 4)
checkpoint(module[0])
pg = PatchableGraph(module, x)
pg(x).sum().backward()
with torch.no_grad(), pg.patch({"output": ZeroPatch()}):
    assert not pg(x).any()
with pg.patch({"sub_0.output": ZeroPatch()}):
    pg(x)
"""

OTHER_NAMES = """
import sys
import torch
import torch.utils.checkpoint as module
text = open(module.__file__).read()
for old in sys.argv[1:]:
    assert old in text
    text = text.replace(old, "_renamed" + old)
exec(compile(text, module.__file__, "exec"), vars(module))
if "_CheckpointFrame" in sys.argv:
    del module._CheckpointFrame
from nets import Net
from libgraphpatch import AddPatch, PatchableGraph
found = []
for reentrant in (None, True, False):
    torch.manual_seed(1)
    net, x = Net(reentrant), torch.randn(3, 4, requires_grad=True)
    pg = PatchableGraph(net, x)
    pg(x).sum().backward()
    x.grad = None
    with pg.patch({"blocks_0.sigmoid": AddPatch(value=0.5)}):
        pg(x).square().sum().backward()
    found.append(x.grad)
    assert torch.equal(found[0], x.grad)
"""


def program(text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", text, *arguments],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().with_name("helpers"),
    )


UNSEEN = r"GraphPatchError: \S+: a checkpoint with use_reentrant=False begins in a patched run in a way"


def test_a_checkpoint_whose_beginning_was_imported_before_is_refused() -> None:
    done = program(IMPORTED_BEFORE)
    assert re.search(UNSEEN, done.stderr) and done.stderr.count("Error: ") == 1, done.stderr


GENERATOR, FRAME = "_checkpoint_without_reentrant_generator", "_CheckpointFrame"


@pytest.mark.parametrize("names", [[], [FRAME], [GENERATOR], [GENERATOR, FRAME]], ids=" and ".join)
def test_a_torch_with_other_names_has_the_same_gradients_or_is_refused(names: list[str]) -> None:
    """The old generator is still there, as in torch 2.15, but ``checkpoint()`` no longer calls it."""
    done = program(OTHER_NAMES, *names)
    if GENERATOR in names:
        assert re.search(UNSEEN, done.stderr) and done.stderr.count("Error: ") == 1, done.stderr
    else:
        assert done.returncode == 0, done.stderr
