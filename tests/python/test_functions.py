"""What the function of a patch may return, and what the library does with the returned tensor."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, CustomPatch, PatchableGraph, PatchError, PatchIndexError, ReplacePatch, ZeroPatch
from nets import Function


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.up(x)
        hidden = hidden * 2
        return self.down(hidden.sigmoid())


X = torch.randn(3, 4)

CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "fewer rows": lambda value: value[:1] + 0,
    "a view of rows": lambda value: value[1:],
    "another dimension": lambda value: value.unsqueeze(0).expand(2, -1, -1),
    "more rows": lambda value: torch.cat([value, value]),
}


@pytest.mark.parametrize("path", ["x", "up.input", "up.linear", "up.output", "mul", "sigmoid", "down.input"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_function_may_change_the_shape(path: str, change: str) -> None:
    net, function = Net(), CHANGES[change]
    pg = PatchableGraph(net, X)

    def at(name: str, value: Tensor) -> Tensor:
        # The library copies a returned tensor that shares memory; with a clone here, even the last bits agree.
        return function(value).clone() if path in name.split() else value

    with pg.patch({path: CustomPatch(custom_op=function)}):
        patched = pg(X)
    hidden = at("up.linear up.output", net.up(at("x up.input", X)))
    expected = net.down(at("sigmoid down.input", at("mul", hidden * 2).sigmoid()))
    assert torch.equal(patched, expected)
    patched.sum().backward()
    gradients = [parameter.grad for parameter in net.parameters()]
    net.zero_grad()
    expected.sum().backward()
    assert all(torch.allclose(one, p.grad, atol=1e-6) for one, p in zip(gradients, net.parameters(), strict=True))


@pytest.mark.parametrize("path", ["exp", "output"])
def test_a_function_may_change_the_dtype(path: str) -> None:
    pg = PatchableGraph(Function(lambda x: x.exp()), X)
    for dtype in (torch.float64, torch.bfloat16, torch.int64, torch.complex64):
        with pg.patch({path: CustomPatch(custom_op=lambda value, dtype=dtype: value.to(dtype))}):
            patched = pg(X)
        assert patched.dtype == dtype and torch.equal(patched, X.exp().to(dtype))


def test_what_is_written_where_it_lies_keeps_its_shape_and_dtype() -> None:
    pg = PatchableGraph(Function(lambda x: (x + 0).mul_(3)), X)
    for change in (lambda value: value[0], lambda value: value.double()):
        with pg.patch({"mul_": CustomPatch(custom_op=change)}), pytest.raises(PatchError, match="where it lies"):
            pg(X)
    with pg.patch({"mul_": CustomPatch(custom_op=lambda value: value + 1)}):
        assert torch.equal(pg(X), X * 3 + 1)


def inplace(x: Tensor) -> Tensor:
    y = x * 2
    y.relu_()
    return y + 0


@pytest.mark.parametrize("kept", [torch.full((3, 4), -1.0), torch.full((2, 4), -1.0)], ids=["alike", "another shape"])
@pytest.mark.parametrize("part", [lambda kept: kept, lambda kept: kept[:], lambda kept: kept.detach()])
@pytest.mark.parametrize("path", ["mul", "x"])
def test_a_tensor_of_the_users_stays_as_it_is(kept: Tensor, part: Callable[[Tensor], Tensor], path: str) -> None:
    """The tensor is not changed, though the model writes into the value that the tensor replaces."""

    def written(x: Tensor) -> Tensor:
        return inplace(x) if path == "mul" else x.mul_(0) + 0

    with torch.no_grad():
        pg = PatchableGraph(Function(written), X.clone())
        with pg.patch({path: CustomPatch(custom_op=lambda value: part(kept))}):
            patched = pg(X.clone())
    assert kept.eq(-1.0).all() and not patched.any() and patched.shape == kept.shape


def test_errors_are_those_of_pytorch() -> None:
    pg = PatchableGraph(Net(), X)
    for slice in (9, (0, 0, 0), (slice_ := (torch.tensor([7]),)), (..., 4, 0, 0)):
        with pytest.raises(IndexError):
            X.clone()[slice] = 0
        for path in ("x", "up.output"):
            with pg.patch({path: ZeroPatch(slice=slice)}), pytest.raises(IndexError) as raised:
                pg(X)
            assert type(raised.value) is PatchIndexError and isinstance(raised.value, PatchError), slice_
    with pg.patch({"x": AddPatch(value=torch.ones(9))}), pytest.raises(RuntimeError, match="size of tensor") as other:
        pg(X)
    assert not isinstance(other.value, IndexError)


def test_a_number_keeps_its_type() -> None:
    class Plain(nn.Module):
        def forward(self, x: Tensor, count: int = 3) -> Tensor:
            return x * count

    pg = PatchableGraph(Plain(), X)
    with pg.patch({"count": ReplacePatch(value=2)}):
        assert torch.equal(pg(X), X * 2)
    with pg.patch({"count": ReplacePatch(value=2.5)}), pytest.raises(TypeError, match="another type"):
        pg(X)
