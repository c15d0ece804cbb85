"""The Rust crates: programs run libtorch by the crate tch, and their results are compared with PyTorch's."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from installed import TORCH, VERSION, clean, good, make, run, tool
from models import TupleOutputModule
from support import ROOT, graphpatch, run_process, same_bits

PROGRAM = ROOT / "build/languages/rust/debug/tch-session"
EXAMPLES = ROOT / "bindings/rust/graphpatch-tch/examples"
STEPS = ["01-script", "02-scopes", "03-values"]


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


# --- the examples, built against an installed tree ------------------------------------------------------------------------


class Mlp(nn.Module):
    """The model of the examples."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x)))


@pytest.fixture(scope="module")
def mlp() -> Mlp:
    torch.manual_seed(5)
    return Mlp().eval()


@pytest.fixture(scope="module")
def said(mlp: Mlp, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs an example, with its files by name, and answers what it prints."""
    folder, prefix = tmp_path_factory.mktemp("examples"), tmp_path_factory.mktemp("install") / "tree"
    torch.jit.script(mlp).save(str(folder / "mlp.pt"))
    save_file(mlp.state_dict(), folder / "mlp.safetensors")
    make("install", f"PREFIX={prefix}")
    graphpatch("doctor", "--build", "--torch", TORCH, "--into", prefix / "lib/graphpatch-adapters").ok()
    found = {"PKG_CONFIG": tool("pkg-config"), "PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")}
    good(run(["make", "build/languages/rust/examples"], cwd=ROOT, env={**os.environ, **found}))

    def call(step: str, *files: str) -> str:
        program = ROOT / "build/languages/rust/debug/examples" / step
        environment = clean(folder / "home", OMP_NUM_THREADS=1)
        return good(run([program, *(folder / file for file in files)], env=environment))

    setattr(call, "folder", folder)
    return call


def numbers(text: str) -> dict[str, float]:
    """The lines that end with a number."""
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if " " in line]
    return {name: float(number) for name, number in lines if number.replace(".", "").lstrip("-").isdigit()}


def test_every_example_is_tried() -> None:
    assert [file.stem for file in sorted(EXAMPLES.glob("*.rs"))] == STEPS
    versions = (ROOT / "bindings/rust/Cargo.toml").read_text()
    assert f'version = "{VERSION}"' in versions, "the crates have the library's version"


def test_a_script_as_it_is(mlp: Mlp, said: Callable[..., str]) -> None:
    text = said("01-script", "mlp.pt", "g.json")
    tree = graphpatch("show", getattr(said, "folder") / "g.json").ok().stdout
    assert tree in text and '["up.linear", "down.linear"]' in text
    with torch.no_grad():
        hidden = torch.relu(mlp.up(torch.ones(2, 4)))
        bare = mlp.down(hidden).sum().item()
        hidden[:, :8] = 0
        patched = mlp.down(hidden).sum().item()
    assert numbers(text) == pytest.approx({"bare": bare, "patched": patched, "switched off": bare}, abs=2e-5)
    assert "kept [2, 16], 1 applied" in text and "relu" in text.split("refused: ")[1]


def test_scopes_in_rust(mlp: Mlp, said: Callable[..., str]) -> None:
    text = said("02-scopes", "mlp.safetensors")
    assert "├─up: Graph(5)" in text and "└─output: Tensor(2, 4)" in text
    with torch.no_grad():
        up = mlp.up(torch.ones(2, 4))
        bare = mlp.down(torch.relu(up)).sum().item()
        up[:, :8] = 0
        expected = {
            "bare": bare,
            "up.output[:, :8]=zero": mlp.down(torch.relu(up)).sum().item(),
            "down.weight=zero": 2 * mlp.down.bias.sum().item(),
            "output=add:0.5": bare + 4,
            "bare again": bare,
        }
    assert numbers(text) == pytest.approx(expected, abs=2e-5)


def test_values_and_functions(mlp: Mlp, said: Callable[..., str]) -> None:
    text = said("03-values", "mlp.pt")
    with torch.no_grad():
        hidden = torch.relu(mlp.up(torch.ones(2, 4)))
        steered = hidden.clone()
        steered[0] += 0.25
        halved = mlp.down(hidden * 0.5).sum().item()
        gradient = 2 * mlp.down.weight.sum().item()
    found = numbers(text)
    assert found == pytest.approx({"steered": mlp.down(steered).sum().item(), "gradient": gradient}, abs=2e-5)
    last = text.splitlines()[-1]
    assert float(last.split()[1].rstrip(",")) == pytest.approx(halved, abs=2e-5)
    assert last.endswith("Counts { matched: 1, applied: 1, failed: 0 }")
