"""TorchScript: writes into a patched copy also reach the memory of the original, and the other way round."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from support import Saved, leaves, same_bits

X = torch.arange(24.0).view(4, 6) / 8 - 1


class Writer(nn.Module):
    """Writes into its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x[:, 1:3].mul_(3.0)
        return x


class Writing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(3))
        self.writer = Writer()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        y = x.new_empty([4, 6])
        y[:, :2] = x[:, :2] * 2
        y[:, 2:] = 5.0
        left, right = y.chunk(2, dim=1)
        left.copy_(right - 4.5)
        flat = right.t()[1:]
        flat.add_(1)
        y[3] = 0.25
        torch.mul(x[0, :3], 3.0, out=left[1])
        written = self.writer(left)
        activated = self.act(y.t())
        x[1] = 9.0
        self.steps.add_(1)
        return y * 1, left * 1, flat * 1, written + 1, activated.sum(0) + self.steps.sum()


@pytest.fixture
def module() -> Writing:
    return Writing().eval()


@pytest.mark.parametrize("kind", ["scripted", "traced"])
@pytest.mark.parametrize("mode", ["--no-grad", "--grad"])
def test_a_patch_that_changes_nothing_changes_nothing(
    exported: Callable[..., Saved], module: Writing, kind: str, mode: str
) -> None:
    saved = exported("writing", module, (X.clone(),), kind)
    bare = saved.bare(mode).ok()
    tree = saved.run(mode).ok().tree
    paths: list[str] = [path for path, kind in leaves(tree) if kind.startswith("Tensor")]
    assert len(paths) > 30
    alone = ["chunk|sub_0", "writer.x", "t", "slice_1"] if (kind, mode) == ("scripted", "--no-grad") else []
    for case in [*([path] for path in alone), paths]:
        found = saved.run(
            mode, "--runs", 1, patches=[f"{path}=add:-0.0" for path in case], tree=False, extra=["--on-error", "skip"]
        )
        assert same_bits(found.output, bare.output), case
        assert same_bits(found.weights, bare.weights) and same_bits(found.inputs, bare.inputs), case


def test_what_is_written_and_what_is_patched(exported: Callable[..., Saved], module: Writing) -> None:
    saved = exported("writing", module, (X.clone(),), "scripted")
    result = saved.run("--no-grad", patches=["steps=add:100", "writer.x[1]=zero", "x=add:1"]).ok()
    x = X + 1  # the patched input
    y = torch.full((4, 6), 5.0)
    left, right = y[:, :3], y[:, 3:]
    left[:] = right - 4.5
    right[:, 1:] += 1
    y[3] = 0.25
    left[1] = x[0, :3] * 3
    copy = left.clone()  # the input of `writer`
    copy[1] = 0
    copy[:, 1:] *= 3
    left[:, 1:] = copy[:, 1:]
    y.relu_()
    assert same_bits(result.output[0], y) and same_bits(result.output[1], left)
    assert same_bits(result.output[2], right.t()[1:])
    assert same_bits(result.output[3], left + 1)  # `relu_` has overwritten all elements
    expected_inputs = X.clone()
    expected_inputs[1] = 9.0
    assert same_bits(result.inputs[0], expected_inputs)
    assert result.weights["steps"].tolist() == [1.0, 1.0, 1.0]
    # After `steps.add_(1)`, the patched buffer is read anew: 3 * (1 + 100).
    assert same_bits(result.output[4], y.t().sum(0) + 303.0)
