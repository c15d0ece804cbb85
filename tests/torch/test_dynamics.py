"""A scripted energy whose forces are its gradients, in a loop in C++: recorded, patched, and what is said of the gradients."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support import GRAPHPATCH, PROGRAMS, Result, Saved, run_process, same_bits

STEPS = 6
NOTE = "may differ from the program's own in the last bits"


class Energy(nn.Module):
    """A learned potential: each particle's neighbours go through a small network."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(5, 8)
        self.out = nn.Linear(8, 1)

    def forward(self, positions: Tensor) -> Tensor:
        distances = (positions.unsqueeze(0) - positions.unsqueeze(1)).pow(2).sum(-1)
        h = torch.tanh(self.hidden((-distances).exp()))
        h = h * torch.sigmoid(h) + h / 3
        return self.out(h).sum()


class EnergyAndForces(nn.Module):
    """The same, which takes the gradients itself, as DeePMD's models do."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = Energy()

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        leaf = positions.detach().requires_grad_(True)
        energy = self.energy(leaf)
        forces = torch.autograd.grad([energy], [leaf])[0]
        assert forces is not None
        return energy, -forces


@pytest.fixture(params=[Energy, EnergyAndForces], ids=["gradients in C++", "gradients in the model"])
def model(request: Any, exported: Callable[..., Saved]) -> tuple[nn.Module, Saved]:
    torch.manual_seed(3)
    module = request.param().double()
    return module, exported(request.param.__name__, module, (torch.randn(5, 3, dtype=torch.double),))


def simulate(saved: Saved, out: Path, *command: Any) -> tuple[Result, list[tuple[Tensor, Tensor]]]:
    inside = ["--inside"] if "EnergyAndForces" in str(saved.model) else []
    result = run_process([*command, PROGRAMS / "dynamics", *saved.args(), out, STEPS, *inside]).ok()
    return result, [tuple(step) for step in torch.load(out)]


def by_hand(module: nn.Module, saved: Saved, zeroed: int | None = None) -> list[tuple[Tensor, Tensor]]:
    """The program in Python, with one of the hidden features set to zero."""

    def zero(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        changed = output.clone()
        changed[..., zeroed] = 0
        return changed

    energy = module.energy if isinstance(module, EnergyAndForces) else module
    hook = energy.hidden.register_forward_hook(zero) if zeroed is not None else None
    (positions,) = torch.load(saved.inputs)
    velocities, steps = torch.zeros_like(positions), []
    for _ in range(STEPS):
        leaf = positions.detach().requires_grad_()
        value = energy(leaf)
        forces = -torch.autograd.grad(value, leaf)[0]
        velocities = velocities + 0.01 * forces
        positions = positions + 0.01 * velocities
        steps.append((value.detach(), forces))
    if hook:
        hook.remove()
    return steps


def agree(got: list[tuple[Tensor, Tensor]], want: list[tuple[Tensor, Tensor]]) -> bool:
    """Whether results agree up to rounding: TorchScript's optimizer has its own formulas for gradients."""
    return len(got) == len(want) and all(
        torch.allclose(a, b, rtol=1e-12, atol=1e-12) for x, y in zip(got, want) for a, b in zip(x, y)
    )


def test_recorded(model: tuple[nn.Module, Saved], tmp_path: Path) -> None:
    module, saved = model
    _, bare = simulate(saved, tmp_path / "bare.pt")
    assert agree(bare, by_hand(module, saved))
    result, recorded = simulate(saved, tmp_path / "recorded.pt", GRAPHPATCH, "run", "--tree", "--")
    assert agree(recorded, bare)
    # The first energy is the same bit for bit, because no gradient has gone into it yet.
    assert same_bits(recorded[0][0], bare[0][0])
    assert "hidden: Graph" in result.tree
    assert result.stderr.count(NOTE) == 1
    again, same = simulate(saved, tmp_path / "again.pt", GRAPHPATCH, "run", "--tree", "--")
    assert same_bits(same, recorded) and again.tree == result.tree


def test_patched(model: tuple[nn.Module, Saved], tmp_path: Path) -> None:
    module, saved = model
    below = "energy." if isinstance(module, EnergyAndForces) else ""
    patch = f"{below}hidden.output[..., 2]=zero"
    result, patched = simulate(
        saved, tmp_path / "patched.pt", GRAPHPATCH, "run", "--patch", patch, "--on-error", "raise", "--"
    )
    assert agree(patched, by_hand(module, saved, zeroed=2)) and not agree(patched, by_hand(module, saved))
    assert result.stderr.count(NOTE) == 1


def test_nothing_is_said_where_no_gradient_is_asked_for(exported: Callable[..., Saved]) -> None:
    torch.manual_seed(3)
    saved = exported("Energy", Energy().double(), (torch.randn(5, 3, dtype=torch.double),))
    for mode in ("--grad", "--no-grad"):
        result = saved.run(mode, "--runs", "4").ok()
        assert "hidden: Graph" in result.tree and NOTE not in result.stderr
    # When the program asks for a gradient, the note appears once.
    assert saved.run("--grad", "--requires-grad").ok().stderr.count(NOTE) == 1
