"""A patch changes what is downstream of its node, and nothing else that shows the same memory."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import models
from support import Saved, same_bits, weights_of

X = torch.arange(24.0).reshape(4, 6) + 1.0


@pytest.fixture(scope="module")
def module() -> models.Shared:
    torch.manual_seed(0)
    return models.Shared().eval()


@pytest.fixture(scope="module")
def shared(exported: Callable[..., Saved], module: models.Shared) -> Callable[[str], Saved]:
    return lambda kind: exported("shared", module, (X,), kind)


# Nodes that share memory with `mul`, with the weight or with the other chunk. The number is that of the one output that
# is computed from the node.
CASES = [
    ("dropout.dropout", 0),
    ("dropout.input", 0),
    ("dropout.output", 0),
    ("view", 1),
    ("transpose", 2),
    ("expand", 3),
    ("chunk|sub_1", 4),
    ("transpose_1", 5),
]


# dropout returns its input, so that the tracer cannot tell the two apart: in a trace, later readers of `base` read
# dropout's result. Other nodes are downstream of it there, so dropout's nodes are tried in the scripted module only.
KINDS = [("scripted", path, reader) for path, reader in CASES]
KINDS += [("traced", path, reader) for path, reader in CASES if not path.startswith("dropout")]


@pytest.mark.parametrize("mode", ["--no-grad", "--grad"])
@pytest.mark.parametrize("kind, path, reader", KINDS)
def test_only_downstream_sees_it(
    shared: Callable[[str], Saved], module: models.Shared, path: str, reader: int, mode: str, kind: str
) -> None:
    with torch.no_grad():
        expected = list(module(X))
    # Each output adds 1 to its node, except for the chunks, which are added to each other.
    expected[reader] = (X * 2.0)[:, :3] if path.startswith("chunk") else torch.ones_like(expected[reader])
    result = shared(kind).run(mode, "--runs", 3, patches=[f"{path}=zero"]).ok()
    for run in result.outputs[0]:
        assert same_bits(run, expected)
    assert same_bits(result.weights, weights_of(module))
    assert same_bits(result.inputs, (X,))


def test_a_weight_patch_holds_inside_the_scope_for_every_reader(
    shared: Callable[[str], Saved], module: models.Shared
) -> None:
    with torch.no_grad():
        expected = list(module(X))
    expected[5] = torch.ones(6, 4)
    expected[6] = X * 2.0
    result = shared("scripted").run("--runs", 3, patches=["weight=zero"]).ok()
    assert all(same_bits(run, expected) for run in result.outputs[0])
    assert same_bits(result.weights, weights_of(module))


def test_an_input_patch_leaves_the_callers_tensor(shared: Callable[[str], Saved], module: models.Shared) -> None:
    with torch.no_grad():
        expected = module(torch.cat([torch.zeros(1, 6), X[1:]]))
    result = shared("scripted").run("--runs", 3, patches=["x[0]=zero"]).ok()
    assert all(same_bits(run, expected) for run in result.outputs[0])
    assert same_bits(result.inputs, (X,))


def in_place_expected(at: str) -> tuple[torch.Tensor, torch.Tensor]:
    """models.InPlace by hand; the patch `at[0]=replace:0.5` acts on the operand itself, so its views see it."""
    torch.manual_seed(3)
    module = models.InPlace()

    def tap(name: str, value: torch.Tensor) -> torch.Tensor:
        if name == at:
            value[0] = 0.5
        return value

    with torch.no_grad():
        y = tap("relu_", tap("linear.linear", module.linear(X[:, :4].contiguous())).relu_())
        tap("add_", y.add_(1.0))
        head = y[0]
        tap("mul_", y.mul_(2.0))
        return y, head


@pytest.mark.parametrize("kind", ["scripted", "traced"])
@pytest.mark.parametrize("at", ["linear.linear", "relu_", "add_", "mul_"])
def test_an_operation_that_wrote_into_its_operand(exported: Callable[..., Saved], at: str, kind: str) -> None:
    torch.manual_seed(3)
    saved = exported("in_place", models.InPlace(), (X[:, :4].contiguous(),), kind)
    result = saved.run("--runs", 3, patches=[f"{at}[0]=replace:0.5"]).ok()
    assert all(same_bits(run, in_place_expected(at)) for run in result.outputs[0])
    assert same_bits(result.inputs, (X[:, :4].contiguous(),))


def test_a_view_taken_before_an_in_place_patch_of_the_view_only(exported: Callable[..., Saved]) -> None:
    """`select` (y[0]) shares memory with y. A patch zeroes a copy of it, so that mul_ no longer reaches `head`."""
    torch.manual_seed(3)
    saved = exported("in_place", models.InPlace(), (X[:, :4].contiguous(),))
    result = saved.run(patches=["select=zero"]).ok()
    y, _ = in_place_expected("nowhere")
    assert same_bits(result.output, (y, torch.zeros(4)))


@pytest.mark.parametrize(
    "patch", ["mul=zero", "mul[0]=replace:0.5", "dropout.dropout[0]=zero", "x[0]=zero", "weight[0]=zero"]
)
def test_gradients_through_a_patch(shared: Callable[[str], Saved], patch: str) -> None:
    """The runner differentiates the first output, dropout(x * 2) + 1, with respect to x: 2 where nothing was patched."""
    expected = torch.full((4, 6), 2.0)
    if patch == "mul=zero":
        expected[:] = 0
    elif "weight" not in patch:
        expected[0] = 0
    result = shared("scripted").run("--grad", "--requires-grad", "--runs", 3, patches=[patch]).ok()
    gradients: Any = [gradient for _, gradient in result.outputs[0]]
    # If the output does not depend on x at all, PyTorch returns no gradient instead of zeros.
    assert all(same_bits(torch.zeros(4, 6) if g is None else g, expected) for g in gradients)
