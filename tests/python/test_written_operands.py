"""Operations that return nothing (`_foreach_` ones, fused kernels of servers): their values are what they write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, CustomPatch, PatchableGraph, ProbePatch, ZeroPatch

X = torch.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])


@pytest.fixture(scope="module", autouse=True)
def library() -> Iterator[None]:
    library = torch.library.Library("written_operands", "DEF")
    library.define("double(Tensor(a!) out, Tensor x) -> ()")
    library.define("normed(Tensor x, *, Tensor(a!) out, Tensor(b!) residual) -> ()")

    def double(out: Tensor, x: Tensor) -> None:
        out.copy_(x * 2)

    def normed(x: Tensor, *, out: Tensor, residual: Tensor) -> None:
        residual.add_(x)
        out.copy_(residual / residual.norm())

    library.impl("double", double, "CompositeExplicitAutograd")
    library.impl("normed", normed, "CompositeExplicitAutograd")
    yield
    library._destroy()


class Fused(nn.Module):
    """After each operation it calls `after`, which may set to zero what was written."""

    after: Callable[[str, int], bool] = staticmethod(lambda name, index: False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        doubled = torch.empty_like(x)
        torch.ops.written_operands.double(doubled, x)
        self.zero("double", doubled)
        out, residual = torch.zeros_like(x), torch.ones_like(x)
        torch.ops.written_operands.normed(doubled, out=out, residual=residual)
        self.zero("normed", out, residual)
        some = [out + 1, residual + 1]
        torch._foreach_mul_(some, 3.0)
        self.zero("_foreach_mul_", *some)
        rows = x.clone()
        torch.ops.written_operands.double(rows[0], rows[1])  # into a view
        self.zero("double_1", rows[0])
        return doubled.sin(), out.exp(), residual.cos(), some[0] + some[1], rows

    def zero(self, name: str, *tensors: Tensor) -> None:
        for index, tensor in enumerate(tensors):
            if self.after(name, index):
                tensor.zero_()


PLACES = {
    "double": ("double", 0),
    "normed|sub_0": ("normed", 0),
    "normed|sub_1": ("normed", 1),
    "_foreach_mul_|sub_0": ("_foreach_mul_", 0),
    "_foreach_mul_|sub_1": ("_foreach_mul_", 1),
    "double_1": ("double_1", 0),
}


def same(left: Any, right: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("path", PLACES)
def test_what_an_operation_wrote_into_is_patched(path: str) -> None:
    model = Fused()
    pg = PatchableGraph(model, X)
    bare = model(X)
    with pg.patch({path: AddPatch(value=-0.0)}, on_missing="raise"):
        assert same(pg(X), bare)
    with pg.patch({path: [before := ProbePatch(), ZeroPatch(), after := ProbePatch()]}, on_missing="raise"):
        patched = pg(X)
    assert before.activation is not None and after.activation is not None
    assert before.activation.any() and not after.activation.any()
    model.after = lambda *place: place == PLACES[path]
    assert same(patched, model(X)) and not same(patched, bare)


def test_a_function_replaces_what_an_operation_wrote() -> None:
    model = Fused()
    pg = PatchableGraph(model, X)
    with pg.patch({"double": CustomPatch(custom_op=lambda value: value + 10)}):
        assert torch.equal(pg(X)[0], (X * 2 + 10).sin())


def test_the_graph_shows_what_was_written() -> None:
    lines = repr(PatchableGraph(Fused(), X).graph).splitlines()
    assert "├─double: Tensor(2, 3)" in lines
    assert lines[lines.index("├─normed: tuple(2)") + 1 :][:2] == ["│ ├─sub_0: Tensor(2, 3)", "│ └─sub_1: Tensor(2, 3)"]
    assert "├─_foreach_mul_: list(2)" in lines


def test_what_reads_it_is_shown_to_come_from_there() -> None:
    graph = PatchableGraph(Fused(), X).graph
    assert "sin = aten.sin(double)" in repr(graph._code)


def test_inside_a_scripted_module() -> None:
    class Scripted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out = torch.empty_like(x)
            torch.ops.written_operands.double(out, x)
            return out.sin()

    pg = PatchableGraph(nn.Sequential(torch.jit.script(Scripted())), X)
    for _ in range(3):
        assert torch.equal(pg(X), (X * 2).sin())
        with pg.patch({"sub_0.double": ZeroPatch()}, on_missing="raise"):
            assert not pg(X).any()
