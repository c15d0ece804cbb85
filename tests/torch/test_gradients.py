"""Gradients through patches equal those of the same model written by hand, to inputs, weights and patches' values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from support import PROGRAMS, Saved, run_process, same_bits

# A function that changes values by path in plain PyTorch, as patches do, with gradients.
Taps = Callable[[str, Tensor], Tensor]


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(4))

    def forward(self, h: Tensor) -> Tensor:
        # exp, sigmoid, softmax and relu save their results for the backward pass.
        return torch.exp(h * self.scale).sigmoid().softmax(1)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(3, 4)
        self.gate = Gate()
        self.down = nn.Linear(4, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.up(x.view(2, 3))
        g = self.gate(h) + h.transpose(0, 1).reshape(2, 4)
        return self.down(torch.relu(g)) * y.t()


class InPlaceNet(nn.Module):
    """Values that the model itself writes in place: a patch writes into the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(3, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.up(x.view(2, 3)).mul_(2.0)
        h.add_(y.t())
        return h.tanh() * 3.0


class Broken(nn.Module):
    """sigmoid_ saves the memory that it writes into, so that PyTorch refuses a backward pass after `value[...] = 0`."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(3, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.up(x.view(2, 3)).sigmoid_() * y.t()


class Detached(nn.Module):
    """Values that require no gradients until a patch brings one that does."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(3, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.up(torch.sigmoid(x.detach().view(2, 3))) * y.t()


def net(tap: Taps, m: Net, x: Tensor, y: Tensor) -> Tensor:
    x, y = tap("x", x), tap("y", y)
    h = tap("up.input", tap("view", x.view(2, 3)))
    h = tap(
        "up.output", tap("up.linear", nn.functional.linear(h, tap("up.weight", m.up.weight), tap("up.bias", m.up.bias)))
    )
    g = tap("gate.mul", tap("gate.h", h) * tap("gate.scale", m.gate.scale))
    g = tap("gate.sigmoid", tap("gate.exp", g.exp()).sigmoid())
    g = tap("gate.output", tap("gate.softmax", g.softmax(1)))
    g = tap("add", g + tap("reshape", tap("transpose", h.transpose(0, 1)).reshape(2, 4)))
    r = tap("down.input", tap("relu", torch.relu(g)))
    d = nn.functional.linear(r, tap("down.weight", m.down.weight), tap("down.bias", m.down.bias))
    d = tap("down.output", tap("down.linear", d))
    return tap("output", tap("mul", d * tap("t", y.t())))


PATHS = [
    "x",
    "y",
    "view",
    "up.input",
    "up.weight",
    "up.bias",
    "up.linear",
    "up.output",
    "gate.h",
    "gate.scale",
    "gate.mul",
    "gate.exp",
    "gate.sigmoid",
    "gate.softmax",
    "gate.output",
    "transpose",
    "reshape",
    "add",
    "relu",
    "down.input",
    "down.weight",
    "down.bias",
    "down.linear",
    "down.output",
    "t",
    "mul",
    "output",
]


def in_place_net(tap: Taps, m: InPlaceNet, x: Tensor, y: Tensor) -> Tensor:
    h = tap("up.output", nn.functional.linear(tap("view", x.view(2, 3)), m.up.weight, m.up.bias))
    h = tap("mul_", h.mul_(2.0))
    h = tap("add_", h.add_(tap("t", y.t())))
    return tap("mul", tap("tanh", h.tanh()) * 3.0)


def broken(tap: Taps, m: Broken, x: Tensor, y: Tensor) -> Tensor:
    return tap("mul", tap("sigmoid_", nn.functional.linear(x.view(2, 3), m.up.weight, m.up.bias).sigmoid_()) * y.t())


def detached(tap: Taps, m: Detached, x: Tensor, y: Tensor) -> Tensor:
    s = tap("sigmoid", tap("view", tap("detach", x.detach()).view(2, 3)).sigmoid())
    return tap("mul", tap("up.output", nn.functional.linear(s, m.up.weight, m.up.bias)) * y.t())


class Patch(NamedTuple):
    path: str
    index: str  # the text of a slice
    kind: str
    value: Any | None  # a number, "&3", "@3", "halve" or nothing

    @property
    def text(self) -> str:
        return f"{self.path}{self.index}={self.kind}" + ("" if self.value is None else f":{self.value}")


INDICES: dict[str, Any] = {"": ..., "[0]": 0, "[..., 1]": (..., 1), "[::2]": slice(None, None, 2), "[0:0]": slice(0, 0)}
VALUES: tuple[Tensor, ...] = (torch.tensor(0.7), torch.tensor([0.3]), torch.tensor(1.5, dtype=torch.float64))


def change(patch: Patch, value: Tensor, values: list[Tensor], in_place: bool) -> Tensor:
    out = value if in_place else value.clone()
    what: Any = patch.value
    index = INDICES[patch.index]
    if what == "halve":
        # The function gets the numbers without their gradient history.
        what = out[index].detach() * 0.5
    elif isinstance(what, str):
        what = values[int(what[1:])] if what[0] == "&" else values[int(what[1:])].detach()
    if patch.kind == "add":
        out[index] += what
    else:
        out[index] = 0 if patch.kind == "zero" else what
    return out


class Answer(NamedTuple):
    output: Tensor
    inputs: tuple[Tensor | None, ...]
    weights: dict[str, Tensor | None]
    values: tuple[Tensor | None, ...]


Model = Callable[[Taps, Any, Tensor, Tensor], Tensor]


def by_hand(
    model: Model, module: nn.Module, inputs: tuple[Tensor, ...], weight: Tensor, patches: list[Patch], mode: str
) -> Answer | None:
    """The expected results, computed by hand. None if the forward or the backward pass throws."""
    inputs = tuple(x.detach().clone().requires_grad_() for x in inputs)
    values = [v.detach().clone().requires_grad_() for v in VALUES]
    module.zero_grad(set_to_none=True)

    def tap(path: str, value: Tensor) -> Tensor:
        for patch in patches:
            if patch.path == path:
                # Names that end with `_` are those of operations that write into an operand.
                value = change(patch, value, values, path.endswith("_"))
        return value

    try:
        with torch.inference_mode(mode == "inference"), torch.set_grad_enabled(mode == "grad"):
            output = model(tap, module, *inputs)
            if output.requires_grad:
                (output * weight).sum().backward()
    except (RuntimeError, IndexError):
        return None
    weights = {name: p.grad for name, p in module.named_parameters()}
    return Answer(output.detach(), tuple(x.grad for x in inputs), weights, tuple(v.grad for v in values))


def check(
    tmp_path: Path,
    saved: Saved,
    model: Model,
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    cases: list[tuple[str, list[Patch]]],
) -> int:
    """Compares all cases. Returns how many of them raise an error, as they must on both sides."""
    torch.manual_seed(1)
    weight = torch.randn(2, 4)
    torch.save((inputs, VALUES, weight), tmp_path / "data.pt")
    lines = ["\t".join([mode, *(patch.text for patch in patches)]) for mode, patches in cases]
    (tmp_path / "cases.txt").write_text("".join(line + "\n" for line in lines))
    run_process(
        [PROGRAMS / "grads", saved.model, tmp_path / "data.pt", tmp_path / "cases.txt", tmp_path / "out.pt"]
    ).ok()
    results, (inputs_after, weights_after, values_after) = torch.load(tmp_path / "out.pt", weights_only=False)
    assert same_bits(inputs_after, inputs) and same_bits(values_after, VALUES)
    assert same_bits(dict(weights_after), {name: p.detach() for name, p in module.named_parameters()})
    assert len(results) == len(cases)

    wrong, threw = [], 0
    for (mode, patches), line, result in zip(cases, lines, results):
        want = by_hand(model, module, inputs, weight, patches, mode)
        if want is None or isinstance(result, str):
            threw += 1
            if not (want is None and isinstance(result, str)):
                wrong.append(f"{line}: {'PyTorch refuses this, the patch did not' if want is None else result}")
            continue
        output, of_inputs, of_weights, of_values = result
        got = Answer(output, of_inputs, dict(of_weights), of_values)
        for field in Answer._fields:
            a, b = getattr(got, field), getattr(want, field)
            if not equal(a, b):
                wrong.append(f"{line}: {field}: {a}\n   expected {b}")
    assert not wrong, f"{len(wrong)} wrong of {len(cases)}:\n" + "\n".join(wrong[:20])
    return threw


def equal(got: Any, want: Any) -> bool:
    """Whether numbers are equal up to the order of sums. A missing gradient does not equal one of zeros."""
    if isinstance(want, Tensor):
        return (
            isinstance(got, Tensor)
            and got.dtype == want.dtype
            and got.shape == want.shape
            and torch.allclose(got, want, rtol=1e-5, atol=1e-6, equal_nan=True)
        )
    if isinstance(want, dict):
        return isinstance(got, dict) and got.keys() == want.keys() and all(equal(got[k], want[k]) for k in want)
    if isinstance(want, tuple):
        return isinstance(got, tuple) and len(got) == len(want) and all(map(equal, got, want))
    return got is want


def inputs() -> tuple[Tensor, ...]:
    return torch.randn(6), torch.randn(4, 2)


def all_patches(paths: list[str]) -> list[Patch]:
    kinds = [
        ("zero", None),
        ("add", 0.5),
        ("replace", -0.25),
        ("add", "&0"),
        ("replace", "&0"),
        ("add", "&1"),
        ("replace", "&1"),
        ("add", "&2"),
        ("replace", "&2"),
        ("add", "@1"),
        ("replace", "@1"),
        ("custom", "halve"),
    ]
    return [Patch(path, index, kind, value) for path in paths for index in INDICES for kind, value in kinds]


@pytest.fixture
def ours(exported: Callable[..., Saved]) -> Callable[..., tuple[Saved, nn.Module, tuple[Tensor, ...]]]:
    def make(kind: type) -> tuple[Saved, nn.Module, tuple[Tensor, ...]]:
        torch.manual_seed(0)
        module, arguments = kind(), inputs()
        return exported(kind.__name__, module, arguments), module, arguments

    return make


@pytest.mark.parametrize("mode", ["grad", "no_grad", "inference"])
def test_through_operations_inputs_outputs_and_parameters(ours: Any, tmp_path: Path, mode: str) -> None:
    saved, module, arguments = ours(Net)
    # The module runs three times without a patch first, so that TorchScript has optimized it, and once at the end.
    cases: list[tuple[str, list[Patch]]] = (
        [(mode, [])] * 3 + [(mode, [patch]) for patch in all_patches(PATHS)] + [(mode, [])]
    )
    threw = check(tmp_path, saved, net, module, arguments, cases)
    assert threw < len(cases) / 4


def test_modes_take_turns(ours: Any, tmp_path: Path) -> None:
    saved, module, arguments = ours(Net)
    patches = [
        Patch("gate.exp", "[0]", "zero", None),
        Patch("relu", "[..., 1]", "add", "&0"),
        Patch("up.weight", "[0]", "replace", "&1"),
        Patch("gate.output", "", "replace", "&0"),
    ]
    cases = [
        (mode, some)
        for _ in range(3)
        for some in [patches[:1], patches, patches[1:3], []]
        for mode in ("grad", "inference", "no_grad")
    ]
    assert check(tmp_path, saved, net, module, arguments, cases) == 0


def test_several_at_one_node(ours: Any, tmp_path: Path) -> None:
    saved, module, arguments = ours(Net)
    row, all_of = Patch("gate.softmax", "[0]", "zero", None), Patch("gate.softmax", "", "add", "&0")
    cases = [("grad", [row, all_of]), ("grad", [all_of, row]), ("grad", [all_of, all_of, row, row])]
    assert check(tmp_path, saved, net, module, arguments, cases) == 0


def test_a_patch_brings_the_gradients(ours: Any, tmp_path: Path) -> None:
    saved, module, arguments = ours(Detached)
    cases = [
        (mode, [patch])
        for mode in ("grad", "no_grad", "inference")
        for patch in all_patches(["detach", "view", "sigmoid", "up.output", "mul"])
    ]
    # Some indices do not fit the result of detach, which has one dimension.
    assert check(tmp_path, saved, detached, module, arguments, cases) < len(cases) / 4


@pytest.mark.parametrize(
    "kind, model, paths",
    [
        (InPlaceNet, in_place_net, ["view", "up.output", "mul_", "add_", "t", "tanh", "mul"]),
        (Broken, broken, ["sigmoid_", "mul"]),
    ],
    ids=["in-place", "saved-result"],
)
def test_in_place_operations(ours: Any, tmp_path: Path, kind: type, model: Model, paths: list[str]) -> None:
    """Right gradients, or the error that PyTorch gives for `value[...] = 0` after the same operation; never wrong ones."""
    saved, module, arguments = ours(kind)
    cases = [(mode, [patch]) for mode in ("grad", "no_grad") for patch in all_patches(paths)]
    threw = check(tmp_path, saved, model, module, arguments, cases)
    assert (threw > 0) == (kind is Broken)
