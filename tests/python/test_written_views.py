"""A patched copy replaces a value whose memory others see. The model's writes into one must also reach the other, but
the change by the patch must not. Expected results come from the same program without patches, or by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, CustomPatch, NodePath, PatchableGraph, ReplacePatch, ZeroPatch
from nets import Function


class Writer(nn.Module):
    """Writes into its input."""

    def forward(self, x: Tensor) -> Tensor:
        x[..., 1:3].mul_(3.0)
        return x


class Calling(nn.Module):
    """A called module, of which nothing is patched, writes into a view."""

    def __init__(self) -> None:
        super().__init__()
        self.writer = Writer()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = x - 1
        half = y[:, :4]
        written = self.writer(half)
        again = self.act(y.t())
        return y * 1, half * 2, written + 1, again.sum(0)


def set_item(x: Tensor) -> tuple[Tensor, ...]:
    y = x.new_empty(x.shape)
    y[..., :2] = x[..., :2] * 2
    y[..., 2:] = 5.0
    return (y * 1,)


def two_views_deep(x: Tensor) -> tuple[Tensor, ...]:
    y = x + 1
    rows = y[1:]
    deep = rows.t()[2:5]
    deep.add_(7)
    deep[0] = -1.0
    return y * 1, rows * 1, deep * 1


def many_ways(x: Tensor) -> tuple[Tensor, ...]:
    y = x + 1
    left, right = y.chunk(2, dim=1)
    left.copy_(right * 2)
    right.fill_(0.25)
    y[2].index_put_((torch.tensor([0, 3]),), torch.tensor([9.0, 8.0]))
    torch.mul(x[0], 3, out=y.view(-1)[:6])
    y.select(1, 5).index_fill_(0, torch.tensor([1]), 4.0)
    y.diagonal().zero_()
    torch._foreach_add_([left[1:], right[:1]], 2.0)
    return y * 1, left * 1, right * 1


def through_the_original(x: Tensor) -> tuple[Tensor, ...]:
    y = x + 1
    view = y[1:3, ::2]
    flat = view.unsqueeze(0)
    y.mul_(2)
    y[2, 1:4] = 0.5
    return view * 1, flat * 1, y * 1


def overlapping(x: Tensor) -> tuple[Tensor, ...]:
    y = x + 1
    wide = y[:, :1].expand(4, 6)
    windows = y.view(-1).unfold(0, 3, 1)
    y.add_(10)
    y[0, 0] = -3.0
    return wide * 1, windows * 1, y * 1


def other_types(x: Tensor) -> tuple[Tensor, ...]:
    y = torch.view_as_complex((x + 1).reshape(4, 3, 2))
    part = y[1:]
    torch.view_as_real(part)[..., 1] = 4.0
    bits = (x * 1).view(torch.int32)
    bits[:, :2] = 0
    conj = y.conj()
    conj.mul_(2j)
    return torch.view_as_real(y) * 1, bits * 1, torch.view_as_real(conj.resolve_conj()) * 1


def own_input(x: Tensor) -> tuple[Tensor, ...]:
    x += 1
    x[:, 0] = 3.0
    return (x * 1,)


def beside_the_view(x: Tensor) -> tuple[Tensor, ...]:
    y = x + 1
    view = y[:, 1:3]
    wider = view.as_strided((3, 4), (6, 1))
    wider[:, 2] = 7.0
    y[:, 4] = -1.0
    return wider * 1, y * 1, view * 1


PROGRAMS: dict[str, nn.Module] = {
    function.__name__: Function(function)
    for function in (
        set_item,
        two_views_deep,
        many_ways,
        through_the_original,
        overlapping,
        other_types,
        own_input,
        beside_the_view,
    )
} | {"a called module": Calling()}

NOTHING = {
    "-0.0": lambda: AddPatch(value=-0.0),
    "an empty slice": lambda: ZeroPatch(slice=(slice(0, 0),)),
    "clone": lambda: CustomPatch(custom_op=torch.clone),
}

X = torch.arange(24.0).view(4, 6) / 8 - 1


def tensors(node: NodePath) -> list[str]:
    """The paths of all tensors below a node."""
    below = list(node)
    if not below:
        return [str(node)] if isinstance(node._shape, tuple) else []
    return [path for child in below for path in tensors(child)]


def same_bits(left: Any, right: Any) -> bool:
    return all(
        a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(torch.int32), b.view(torch.int32))
        for a, b in zip(left, right, strict=True)
    )


def outcome(module: Any) -> list[Tensor]:
    """The result of a call, and its input after the call."""
    x = X.clone()
    with torch.no_grad():
        return [*module(x), x]


@pytest.mark.parametrize("patch", NOTHING)
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_patch_that_changes_nothing_changes_nothing(name: str, patch: str) -> None:
    module = PROGRAMS[name]
    expected = outcome(module)
    pg = PatchableGraph(module, X.clone())
    paths = tensors(pg.graph)
    assert len(paths) > 3
    for path in paths:
        with pg.patch({path: NOTHING[patch]()}, on_error="skip"):
            assert same_bits(outcome(pg), expected), path
    with pg.patch({path: [NOTHING[patch](), NOTHING["-0.0"]()] for path in paths}, on_error="skip"):
        assert same_bits(outcome(pg), expected)
    assert same_bits(outcome(pg), expected)


def patched(function: Any, path: str, patch: Any) -> list[Tensor]:
    x = X.clone()
    pg = PatchableGraph(Function(function), X.clone())
    with torch.no_grad(), pg.patch({path: patch}, on_missing="raise"):
        return [*pg(x), x]


def test_what_the_patch_changes_stays_in_the_copy() -> None:
    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        y = x + 1
        view = y[:, :3]
        y[0] = 5.0  # the patch has changed the view there
        view[1] = 7.0
        view[2:, 1] += 1
        return view * 1, y * 1

    view, y, _ = patched(function, "slice_1", AddPatch(value=100.0))
    by_hand = X + 1
    by_hand_view = by_hand[:, :3] + 100
    by_hand[0] = 5.0
    by_hand[1, :3] = by_hand_view[1] = 7.0
    by_hand_view[2:, 1] += 1
    by_hand[2:, 1] = by_hand_view[2:, 1]
    assert torch.equal(view, by_hand_view) and torch.equal(y, by_hand)


def test_a_patched_input_writes_to_the_callers_tensor_what_the_model_writes() -> None:
    def function(x: Tensor) -> tuple[Tensor]:
        x[1] = 4.0
        return (x * 2,)

    result, x = patched(function, "x", ZeroPatch())
    by_hand = X.clone()
    by_hand[1] = 4.0
    assert torch.equal(x, by_hand)
    seen = torch.zeros_like(X)
    seen[1] = 4.0
    assert torch.equal(result, seen * 2)


def test_copies_of_copies() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        y = x + 1
        outer = y[1:]
        inner = outer.t()
        inner[0] = 2.0
        y[:, 1] = 3.0
        outer[:, 2] = 4.0
        return y * 1, outer * 1, inner * 1

    pg = PatchableGraph(Function(function), X.clone())
    with torch.no_grad(), pg.patch({"slice_1": AddPatch(value=10.0), "t": AddPatch(value=100.0)}):
        y, outer, inner = pg(X.clone())
    by_hand = X + 1
    by_hand_outer, by_hand_inner = by_hand[1:] + 10, by_hand[1:].t() + 110
    for column, value in enumerate((2.0, 3.0, 4.0)):
        by_hand[(slice(1, None) if column != 1 else slice(None)), column] = value
        # Writes into a copy reach its original, and other copies of it in places that their patches did not change.
        if column == 2:
            by_hand_outer[:, column] = value
    by_hand_inner[0], by_hand_outer[:, 0] = 2.0, 2.0
    assert torch.equal(y, by_hand) and torch.equal(outer, by_hand_outer) and torch.equal(inner, by_hand_inner)


def test_an_output_that_is_a_view_is_written_by_the_caller() -> None:
    class First(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:2]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = First()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = x + 1
            part = self.first(y)
            part += 5
            return y * 1, part * 1

    pg = PatchableGraph(Net(), X.clone())
    with torch.no_grad(), pg.patch({"first.output": ReplacePatch(value=1.0)}):
        y, part = pg(X.clone())
    by_hand = X + 1
    by_hand[:2] = 6.0
    assert torch.equal(y, by_hand) and torch.equal(part, by_hand[:2])


def test_gradients_follow_what_is_written() -> None:
    """The gradients are those of a program that uses a clone of the view and copies writes into it back."""

    def function(x: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        y = x * 2
        view = y[:, :3]
        view[1] = a
        y[2] = a.sum()
        return y.sin(), view.cos()

    def by_hand(x: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        y = x * 2
        view = y[:, :3] + 0.5
        view[1] = a
        y[1, :3] = a
        y[2] = a.sum()
        return y.sin(), view.cos()

    class Net(nn.Module):
        def forward(self, x: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
            return function(x, a)

    def gradients(call: Any, needed: tuple[bool, bool]) -> list[Tensor]:
        inputs = X.clone().requires_grad_(needed[0]), torch.tensor([0.25, -1.0, 2.0]).requires_grad_(needed[1])
        results = call(*inputs)
        (results[0].sum() + results[1].mul(3).sum()).backward()
        return [*(r.detach() for r in results), *(i.grad for i in inputs if i.grad is not None)]

    pg = PatchableGraph(Net(), X.clone(), torch.zeros(3))
    for needed in ((True, True), (True, False), (False, True)):
        with pg.patch({"slice_1": AddPatch(value=0.5)}):
            found = gradients(pg, needed)
        for one, other in zip(found, gradients(by_hand, needed), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
        with pg.patch({path: AddPatch(value=-0.0) for path in tensors(pg.graph)}):
            found = gradients(pg, needed)
        for one, other in zip(found, gradients(function, needed), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_autograd_notices_what_is_written_without_gradients() -> None:
    """A value that autograd has saved was overwritten: this raises an error instead of giving a wrong gradient."""

    def function(x: Tensor) -> Tensor:
        y = x * 2
        z = y * y
        view = y[:1]
        with torch.no_grad():
            view.zero_()
        return z

    pg = PatchableGraph(Function(function), X.clone())
    with pg.patch({"slice_1": AddPatch(value=-0.0)}):
        result = pg(X.clone().requires_grad_())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


class Counting(nn.Module):
    """Keeps statistics of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(3))
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        before = self.steps * 1
        self.steps.add_(1)
        return self.norm(x) + before.sum(), self.steps * 1


@pytest.mark.parametrize("training", [True, False])
def test_statistics_are_what_they_are_without_patches(training: bool) -> None:
    bare, watched = Counting().train(training), Counting().train(training)
    pg = PatchableGraph(watched, X.clone())
    watched.load_state_dict(bare.state_dict())
    patches = {
        "steps": AddPatch(value=10.0),
        "norm.running_mean": AddPatch(value=1.0),
        "norm.running_var": AddPatch(value=3.0),
    }
    for _ in range(3):
        expected, steps = bare(X)
        with pg.patch(patches, on_missing="ignore"):
            found, seen = pg(X)
        for name, value in bare.state_dict().items():
            assert torch.equal(watched.state_dict()[name], value), name
        assert torch.equal(seen, steps + 10)
        if training:
            torch.testing.assert_close(found, expected + 30.0)
        else:
            norm = bare.norm
            by_hand = nn.functional.batch_norm(X, norm.running_mean + 1, norm.running_var + 3, norm.weight, norm.bias)
            before = bare.steps - 1 + 10
            assert torch.equal(found, by_hand + before.sum())


def test_names_are_right_where_a_module_is_called_more_than_once() -> None:
    """Operations of each call belong to the module, even if none of its calls matter to a patch."""

    class Adds(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.adds = Adds()

        def forward(self, x: Tensor) -> Tensor:
            x = self.adds(self.adds(self.adds(x)))
            return (x + 10) + 100

    pg = PatchableGraph(Net(), X.clone())
    with torch.no_grad(), pg.patch({"add_1": ReplacePatch(value=0.5)}):
        assert torch.equal(pg(X), torch.full_like(X, 0.5))
    with torch.no_grad(), pg.patch({"add": ReplacePatch(value=0.5)}):
        assert torch.equal(pg(X), torch.full_like(X, 100.5))


def test_nothing_is_kept_when_the_run_has_ended() -> None:
    kept: list[Tensor] = []

    def function(x: Tensor) -> Tensor:
        y = x + 1
        view = y[:2]
        kept[:] = [y, view]
        return view * 2

    pg = PatchableGraph(Function(function), X.clone())
    with torch.no_grad(), pg.patch({"slice_1": AddPatch(value=1.0)}):
        pg(X)
    kept[1].zero_()
    assert torch.equal(kept[0], X + 1)
