"""The C ABI from Rust: a program runs libtorch by the crate tch, and its results are compared with PyTorch's."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models import TupleOutputModule
from support import ROOT, run_process, same_bits

PROGRAM = ROOT / "build/languages/rust/debug/tch-session"


class Net(nn.Module):
    """The same module as the Rust program's Net."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 8)
        self.down = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x))) + x.narrow(1, 0, 2)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, nn.Module, dict[str, Tensor], Path]:
    """The modules, the tensors that were given, and where the program's results are."""
    if not PROGRAM.exists():
        pytest.fail(f"not built: {PROGRAM}; run `make test-languages`")
    given, out = tmp_path_factory.mktemp("given"), tmp_path_factory.mktemp("out")
    torch.manual_seed(3)
    script, net = TupleOutputModule().eval(), Net().eval()
    torch.jit.script(script).save(str(given / "script.pt"))
    save_file(net.state_dict(), given / "net.safetensors")
    values = {
        "x": torch.randn(3, 2),
        "delta": torch.randn(2, 2),
        "replacement": torch.randn(3, 3),
        "y": torch.randn(5, 4),
    }
    save_file(values, given / "values.safetensors")
    result = run_process([PROGRAM, given, out]).ok()
    assert result.stdout == "all as it must be\n"
    return script, net, values, out


def test_script(ran: tuple[nn.Module, nn.Module, dict[str, Tensor], Path]) -> None:
    script, _, values, out = ran
    x, linear = values["x"], script.linear
    replacement = values["replacement"].clone().requires_grad_()
    (replacement * replacement).sum().backward()
    with torch.no_grad():
        first, second, shifted = linear(x), linear(x + 1), x + 1
        zeroed = first.clone()
        zeroed[0] = 0
        shifted[1:] += values["delta"]
        changed = torch.tanh(first) * 2
        expected = {
            **dict.fromkeys(["bare", "recorded", "not here", "closed"], (first, second)),
            "zero": (zeroed, second),
            "add": (first, linear(shifted)),
            "replace": (first, replacement.detach()),
            "gradient": (replacement.grad, x),
            "custom": (changed, second),
            "custom on a thread": (changed, second),
            "kept": (first, changed),
            "here": (first, linear(torch.zeros(3, 2))),
        }
    computed = load_file(out / "computed.safetensors")
    found = {name for name in computed if name.endswith((".0", ".1"))}
    assert found == {f"{name}.{part}" for name in expected for part in (0, 1)}
    for name, pair in expected.items():
        for part, tensor in enumerate(pair):
            assert same_bits(computed[f"{name}.{part}"], tensor), f"{name}.{part}"


def test_net(ran: tuple[nn.Module, nn.Module, dict[str, Tensor], Path]) -> None:
    _, net, values, out = ran
    y = values["y"]
    with torch.no_grad():
        hidden = net.up(y)
        skipped = y.narrow(1, 0, 2)
        bare = net(y)
        weight = net.up.weight.clone()
        weight[0] = 0
        replaced, last = hidden.clone(), bare.clone()
        replaced[:, 1], last[..., -1] = 3, 0
        expected = {
            **dict.fromkeys(["net bare", "net recorded", "net after", "net again"], bare),
            "x=add:1": net(y + 1),
            "up.weight[0]=zero": net.down(torch.relu(nn.functional.linear(y, weight, net.up.bias))) + skipped,
            "up.output[:, 1]=replace:3": net.down(torch.relu(replaced)) + skipped,
            "relu=add:0.5": net.down(torch.relu(hidden) + 0.5) + skipped,
            "down.input=zero": net.down(torch.zeros(5, 8)) + skipped,
            "output[..., -1]=zero": last,
            "net kept": torch.relu(hidden),
        }
    computed = load_file(out / "computed.safetensors")
    assert {name for name in computed if not name.endswith((".0", ".1"))} == set(expected)
    for name, tensor in expected.items():
        assert same_bits(computed[name], tensor), name


def test_trees(ran: tuple[nn.Module, nn.Module, dict[str, Tensor], Path]) -> None:
    """The same trees that Python's package gives of the same modules."""
    script, net, values, out = ran
    sys.path.insert(0, str(ROOT / "bindings" / "python"))
    from libgraphpatch import PatchableGraph

    for module, given, file in [(script, "x", "script.txt"), (net, "y", "net.txt")]:
        expected = repr(PatchableGraph(module, values[given]).graph)
        assert (out / file).read_text().rstrip("\n") == expected.rstrip("\n")
