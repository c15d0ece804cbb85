"""Modules with hooks of the user's: the hooks see the same after a patch as after another hook with the same effect."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, CustomPatch, PatchableGraph, ProbePatch, ZeroPatch


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        return self.linear(x) * scale


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, scale=2.0)
        return x


X = torch.randn(2, 4)
Edit = Callable[[Tensor], Tensor]


@pytest.fixture
def pg() -> PatchableGraph:
    return PatchableGraph(Net(), X)


def module_at(pg: PatchableGraph, path: str) -> nn.Module:
    found: nn.Module = pg.module if path == "output" else pg.module.blocks[0]
    return found


def seen(run: Callable[[], Any], register: Callable[[Callable[..., Any]], Any]) -> list[Any]:
    """The arguments with which a hook is called in a run, and the result of the run."""
    called: list[Any] = []

    def hook(_: nn.Module, *given: Any) -> None:
        called.append([value.clone() if isinstance(value, Tensor) else value for value in given])

    with register(hook):
        called.append(run())
    return called


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def compare(pg: PatchableGraph, path: str, register: Callable[[nn.Module, Callable[..., Any]], Any]) -> list[Any]:
    """The hook of ``register`` sees the same after a patch of ``path`` as after a hook that does the same."""
    module = module_at(pg, path)

    def patched() -> Tensor:
        with pg.patch({path: AddPatch(value=100.0)}):
            output: Tensor = pg(X)
        return output

    by_patch = seen(patched, lambda hook: register(module, hook))
    with module.register_forward_hook(lambda _m, _i, output: output + 100.0):
        by_hook = seen(lambda: pg.module(X), lambda hook: register(module, hook))
    assert equal(by_patch, by_hook)
    assert not module._forward_hooks and not nn.modules.module._global_forward_hooks
    return by_patch


@pytest.mark.parametrize("path", ["blocks_0.output", "output"])
@pytest.mark.parametrize("with_kwargs", [False, True])
@pytest.mark.parametrize("always_call", [False, True])
def test_a_forward_hook_sees_the_patched_output(
    pg: PatchableGraph, path: str, with_kwargs: bool, always_call: bool
) -> None:
    options = {"with_kwargs": with_kwargs, "always_call": always_call}
    given = compare(pg, path, lambda module, hook: module.register_forward_hook(hook, **options))[0]
    assert len(given) == (3 if with_kwargs else 2) and bool((given[-1] > 50).all())


def test_a_hook_of_all_modules_sees_it(pg: PatchableGraph) -> None:
    register: Any = nn.modules.module.register_module_forward_hook
    block = pg.module.blocks[0]

    def zero(module: nn.Module, _: Any, output: Tensor) -> Tensor | None:
        return torch.zeros_like(output) if module is block else None

    by_patch = seen(lambda: zeroed(pg), register)
    with register(zero):
        by_hook = seen(lambda: pg.module(X), register)
    assert equal(by_patch, by_hook) and len(by_patch) == 6
    assert not nn.modules.module._global_forward_hooks


def test_a_hook_that_stands_before_all_others_sees_it(pg: PatchableGraph) -> None:
    block = pg.module.blocks[0]
    found = seen(lambda: zeroed(pg), lambda hook: block.register_forward_hook(hook, prepend=True, with_kwargs=True))
    assert found[0][1] == {"scale": 2.0} and not found[0][2].any()


def zeroed(pg: PatchableGraph) -> Tensor:
    with pg.patch({"blocks_0.output": ZeroPatch()}):
        output: Tensor = pg(X)
    return output


def test_what_a_hook_returns_is_what_the_caller_gets(pg: PatchableGraph) -> None:
    """The result is that of two hooks of which the first is the patch."""
    block, edit = pg.module.blocks[0], CustomPatch(custom_op=lambda value: value * 2)
    with block.register_forward_hook(lambda _m, _i, output: output + 1):
        with pg.patch({"blocks_0.output": [edit, value := ProbePatch()], "blocks_1.x": (after := ProbePatch())}):
            patched = pg(X)
    expected = block(X, scale=2.0) * 2
    assert value.activation.equal(expected) and after.activation.equal(expected + 1)
    assert patched.equal(pg.module.blocks[1](expected + 1, scale=2.0))


def test_the_graph_of_a_module_with_a_hook_is_what_patches_meet(pg: PatchableGraph) -> None:
    with pg.module.blocks[0].register_forward_hook(lambda _m, _i, output: output * 3 + 1):
        hooked = PatchableGraph(pg.module, X)
        assert [*hooked.graph.blocks_0.keys()] == ["x", "scale", "linear", "mul", "output", "mul_1", "add"]
        assert "return mul\n" in str(hooked.graph.blocks_0._code)
        assert not hooked.check(X).wrong
        values = hooked.cache(X)
        assert values["blocks_1.x"].equal(values["blocks_0.output"] * 3 + 1)
        assert values["blocks_1.x"].equal(values["blocks_0.add"])


def test_a_hook_of_gradients_sees_those_of_what_the_caller_gets(pg: PatchableGraph) -> None:
    def gradients(run: Callable[[Tensor], Tensor]) -> list[Tensor]:
        found: list[Tensor] = []
        with pg.module.blocks[0].register_full_backward_hook(lambda _m, ins, outs: found.extend((ins[0], outs[0]))):
            run(X.clone().requires_grad_()).sum().backward()
        return found

    def patched(x: Tensor) -> Tensor:
        with pg.patch({"blocks_0.output": CustomPatch(custom_op=lambda value: value * 2)}):
            output: Tensor = pg(x)
        return output

    by_patch = gradients(patched)
    with pg.module.blocks[0].register_forward_hook(lambda _m, _i, output: output * 2):
        assert equal(by_patch, gradients(pg.module)) and len(by_patch) == 2


def test_a_hook_that_must_be_called_is_when_a_patch_raises(pg: PatchableGraph) -> None:
    def refuse(_: Tensor) -> Tensor:
        raise ZeroDivisionError("refused")

    block, called = pg.module.blocks[0], []
    with block.register_forward_hook(lambda *_: called.append("always"), always_call=True):
        with block.register_forward_hook(lambda *_: called.append("never")):
            with pg.patch({"blocks_0.output": CustomPatch(custom_op=refuse)}), pytest.raises(ZeroDivisionError):
                pg(X)
    assert called == ["always"] and not block._forward_hooks


def test_a_hook_that_takes_itself_away_is_called_once(pg: PatchableGraph) -> None:
    block, called = pg.module.blocks[0], []

    def once(_m: nn.Module, _i: Any, output: Tensor) -> None:
        handle.remove()
        called.append(output.clone())

    handle = block.register_forward_hook(once)
    zeroed(pg), zeroed(pg)
    assert len(called) == 1 and not called[0].any() and not block._forward_hooks


class Recursive(nn.Module):
    def forward(self, x: Tensor, depth: int = 0) -> Tensor:
        return self(x + 1, depth + 1) * 2 if depth < 2 else x + 1


def test_a_module_that_calls_itself(pg: PatchableGraph) -> None:
    outer = nn.Sequential(Recursive())
    pg = PatchableGraph(outer, X)
    found: list[Tensor] = []
    with outer[0].register_forward_hook(lambda _m, _i, output: found.append(output.clone())):
        with pg.patch({"sub_0.output": AddPatch(value=100.0)}):
            pg(X)
    assert [
        value.equal(expected)
        for value, expected in zip(
            found, [X + 1 + 1 + 1, (X + 1 + 1 + 1) * 2, (X + 1 + 1 + 1) * 2 * 2 + 100], strict=True
        )
    ] == [True, True, True]


def test_another_thread_without_patches_sees_its_own_values(pg: PatchableGraph) -> None:
    block, by_thread = pg.module.blocks[0], {}

    def keep(_m: nn.Module, _i: Any, output: Tensor) -> None:
        by_thread.setdefault(threading.get_ident(), []).append(bool((output > 50).all()))

    def patched() -> None:
        with pg.patch({"blocks_0.output": AddPatch(value=100.0)}, this_thread=True):
            for _ in range(200):
                pg(X)

    with block.register_forward_hook(keep):
        other = threading.Thread(target=patched)
        other.start()
        for _ in range(200):
            pg(X)
        other.join()
    assert sorted(map(all, by_thread.values())) == [False, True]
    assert sorted(map(any, by_thread.values())) == [False, True]
    assert [len(each) for each in by_thread.values()] == [200, 200]
    assert not block._forward_hooks
