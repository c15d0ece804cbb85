"""A parameter or buffer that a module hands to one of its submodules is patched there in every run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from libgraphpatch import AddPatch, PatchableGraph, ProbePatch, ZeroPatch


class Apply(nn.Module):
    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return F.linear(x, w)


class Deep(nn.Module):
    """Passes the tensors that it was given on to a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleList([Apply()])

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        return self.inner[0](*pair)


class Handing(nn.Module):
    def __init__(self, inner: nn.Module, buffer: bool = False) -> None:
        super().__init__()
        self.inner = inner
        value = torch.arange(6.0).view(2, 3)
        if buffer:
            self.register_buffer("w", value)
        else:
            self.w = nn.Parameter(value)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.inner, Deep):
            return self.inner((x, self.w)) + 0
        return self.inner(x, self.w) + 0


class Outer(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.block = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(
    "make, path",
    [
        (lambda: Handing(Apply()), "w"),
        (lambda: Handing(Apply(), buffer=True), "w"),
        (lambda: Handing(Deep()), "w"),
        (lambda: Outer(Handing(Apply())), "block.w"),
    ],
    ids=["parameter", "buffer", "handed on in a tuple", "below the root"],
)
def test_a_handed_parameter_is_patched_in_every_run(make: Callable[[], nn.Module], path: str, grad: bool) -> None:
    model, x = make(), torch.ones(1, 3)
    bare = model(x)
    pg = PatchableGraph(model, x)
    with torch.set_grad_enabled(grad):
        for _ in range(2):
            with pg.patch({path: ZeroPatch()}):
                for _ in range(3):
                    assert pg(x).tolist() == [[0.0, 0.0]]
            with pg.patch({path: AddPatch(value=1.0)}):
                assert torch.equal(pg(x), bare + 3)
            assert torch.equal(pg(x), bare)
    assert torch.equal(model(x), bare)


@pytest.mark.parametrize(
    "make", [parametrizations.weight_norm, parametrizations.orthogonal, parametrizations.spectral_norm]
)
def test_what_a_parametrization_is_made_of(make: Callable[[nn.Module], nn.Module]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(make(nn.Linear(3, 3))).eval()
    x = torch.randn(2, 3)
    pg = PatchableGraph(model, x)
    names = [name for name in dir(pg.graph.sub_0.parametrizations_weight) if name.startswith("original")]
    assert names
    for name in names:
        original = getattr(model[0].parametrizations.weight, name)
        kept = original.detach().clone()
        with torch.no_grad():
            original.add_(0.25)
        expected = model(x)
        with torch.no_grad():
            original.copy_(kept)
        with pg.patch({f"sub_0.parametrizations_weight.{name}": AddPatch(value=0.25)}):
            for _ in range(2):
                torch.testing.assert_close(pg(x), expected)
        torch.testing.assert_close(pg(x), model(x))


def test_a_parametrization_of_the_users() -> None:
    class Symmetric(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.triu() + x.triu(1).t()

    model = nn.Linear(3, 3, bias=False)
    parametrize.register_parametrization(model, "weight", Symmetric())
    x = torch.eye(3)
    pg = PatchableGraph(model, x)
    with pg.patch({"parametrizations_weight.original": ZeroPatch()}):
        for _ in range(2):
            assert not pg(x).any()
    assert pg(x).any()


class Keeps(nn.Module):
    """Reads a parameter of a module around it, which a plain list keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.kept[0])


class Lends(nn.Module):
    """Reads its parameter itself as well: after the module below, before it, or not at all."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.arange(6.0).view(2, 3))
        self.deep, self.way = Outer(Keeps()), way
        self.deep.block.kept.append(self.w)

    def forward(self, x: Tensor) -> Tensor:
        before = F.linear(x, self.w) if self.way == "before" else 0
        y = self.deep(x)
        return before + y + (F.linear(x, self.w) if self.way == "after" else 0)


@pytest.mark.parametrize("way", ["after", "before", "not at all"])
def test_a_parameter_that_a_module_below_keeps_is_patched_in_every_order(way: str) -> None:
    model, x = Lends(way), torch.ones(1, 3)
    bare = model(x)
    pg = PatchableGraph(model, x)
    assert repr(pg.graph).splitlines()[1:3] == ["├─x: Tensor(1, 3)", "├─w: Tensor(2, 3)"]
    for _ in range(2):
        with pg.patch({"w": [probe := ProbePatch(), AddPatch(value=1.0)]}) as block:
            for _ in range(2):
                assert torch.equal(pg(x), bare + 3 * (1 if way == "not at all" else 2))
        assert torch.equal(probe.activation, model.w) and [count.matched for count in block.counts["w"]] == [2, 2]
    assert torch.equal(pg(x), bare)
