"""Modules with hooks, and with a ``forward`` of their own, in compiled models: torch.compile traces all that it traces without us."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import PatchableGraph, ZeroPatch

X = torch.arange(8.0).reshape(2, 4) / 8


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x)))


class Called(nn.Linear):
    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x) * 3


def after(model: Net) -> None:
    model.up.register_forward_hook(lambda module, args, output: output * 2)


def before(model: Net) -> None:
    model.down.register_forward_pre_hook(lambda module, args: (args[0] + 1,))


def by_name(model: Net) -> None:
    model.up.register_forward_hook(lambda module, args, kwargs, output: output + 1, with_kwargs=True)


def at_the_root(model: Net) -> None:
    model.register_forward_hook(lambda module, args, output: output + 5)


def own_forward(model: Net) -> None:
    plain = model.up.forward
    model.up.forward = lambda x: plain(x) * 2  # type: ignore[method-assign]


def own_call(model: Net) -> None:
    model.up.__class__ = Called
    after(model)


HOOKS = [after, before, by_name, at_the_root, own_forward, own_call]


def model(hook: Callable[[Net], None]) -> Net:
    torch.manual_seed(0)
    made = Net().eval()
    hook(made)
    return made


@pytest.fixture(autouse=True)
def compiles_anew() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("hook", HOOKS)
def test_a_watched_model_is_compiled_as_it_is(hook: Callable[[Net], None], grad: bool) -> None:
    context: AbstractContextManager[object] = nullcontext() if grad else torch.no_grad()
    with context:
        expected = model(hook)(X)
        watched = model(hook)
        pg = PatchableGraph(watched, X)
        compiled = torch.compile(watched, backend="eager", fullgraph=True)
        with torch._dynamo.config.patch(error_on_recompile=True):
            for _ in range(3):
                assert torch.equal(compiled(X), expected)
        with pg.patch({"up.output": ZeroPatch()}):
            assert not torch.equal(pg(X), expected)
        assert torch.equal(compiled(X), expected)


@pytest.mark.parametrize("hook", [before, at_the_root])
def test_the_inside_has_eagers_names_and_values(hook: Callable[[Net], None]) -> None:
    with torch.no_grad():
        eager = PatchableGraph(model(hook), X)
        with eager.patch({"up.output": ZeroPatch()}):
            expected = eager(X)
        inside = PatchableGraph(torch.compile(model(hook), backend="eager", fullgraph=True), X)
        assert repr(inside.graph) == repr(eager.graph)
        with inside.patch({"up.output": ZeroPatch()}):
            assert torch.equal(inside(X), expected)


@pytest.mark.parametrize("hook", [after, by_name])
def test_an_output_is_what_the_hooks_return(hook: Callable[[Net], None]) -> None:
    with torch.no_grad():
        inside = PatchableGraph(torch.compile(model(hook), backend="eager", fullgraph=True), X)
        plain = model(hook)
        assert torch.equal(inside(X), plain(X))
        with inside.patch({"up.output": ZeroPatch()}):
            assert torch.equal(inside(X), plain.down(torch.zeros(2, 4)))


def test_hooks_of_all_modules() -> None:
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, output: output * 2 if isinstance(module, nn.Linear) else None
    )
    try:
        with torch.no_grad():
            expected = model(lambda net: None)(X)
            watched = model(lambda net: None)
            PatchableGraph(watched, X)
            assert torch.equal(torch.compile(watched, backend="eager", fullgraph=True)(X), expected)
    finally:
        handle.remove()
