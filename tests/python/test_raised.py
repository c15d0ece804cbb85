"""An error of a patch goes away with the last who holds it. Until then it holds the frames of the model, with what the
model has switched on there."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from libgraphpatch import AddPatch, CustomPatch, Patch, PatchableGraph, PatchError
from nets import Function

X = torch.tensor([[1.0, -2.0, 3.0]])


@pytest.fixture
def without_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def fails(_value: Tensor) -> Tensor:
    raise KeyError("a mistake of the user's")


def does_not_fit() -> Patch[Tensor]:
    return AddPatch(value=torch.ones(7))


def raises() -> Patch[Tensor]:
    return CustomPatch(custom_op=fails)


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(lambda value: self.linear(value * 2).exp(), x, use_reentrant=False) + 1


def hooks_on_saved_tensors() -> object:
    return torch._C._autograd._top_saved_tensors_default_hooks(False)


@pytest.mark.parametrize("make", [does_not_fit, raises])
@pytest.mark.parametrize("path", ["mul", "linear.input", "linear.linear", "linear.output", "exp"])
def test_the_hooks_of_a_checkpoint_are_off_after_an_error(
    path: str, make: Callable[[], Patch[Tensor]], without_collection: None
) -> None:
    model, x = Checkpointed(), X.clone().requires_grad_()
    pg = PatchableGraph(model, x)
    with pg.patch({path: make()}):
        try:
            pg(x)
            pytest.fail("the patch was applied")
        except (PatchError, KeyError):
            pass
    assert hooks_on_saved_tensors() is None
    with pg.patch({path: AddPatch(value=1.0)}):
        pg(x).sum().backward()
    assert x.grad is not None and bool(x.grad.abs().sum() > 0)


@pytest.mark.parametrize("make", [does_not_fit, raises])
def test_the_models_values_are_freed(make: Callable[[], Patch[Tensor]], without_collection: None) -> None:
    freed: list[str] = []

    class Watched:
        def __del__(self) -> None:
            freed.append("watched")

    def forward(x: Tensor) -> Tensor:
        watched = Watched()
        return x.exp() + (1 if watched else 0)

    pg = PatchableGraph(Function(forward), X)
    del freed[:]
    with pg.patch({"exp": make()}):
        try:
            pg(X)
            pytest.fail("the patch was applied")
        except (PatchError, KeyError):
            pass
    assert freed == ["watched"]
