"""Higher-order operators called in a model that is not compiled: torch.cond, torch.while_loop and flex attention. torch
compiles their functions itself, and calls what it has captured. The values are those of the model as it is; the captured
functions are scopes."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import linear

from libgraphpatch import AddPatch, PatchableGraph, PatchError, ProbePatch
from nets import names

COMPILED = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


class Cond(nn.Module):
    """Calls one of two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: self.a(x).relu(), lambda x: self.b(x).sin(), (x,)) * 2


class While(nn.Module):
    """Calls a module three times."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        from torch._higher_order_ops.while_loop import while_loop

        def body(n: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            return n + 1, self.a(x).tanh()

        return while_loop(lambda n, x: n < 3, body, (torch.tensor(0), x))[1] * 2


class Flex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(self.q(x)) * 2

    @staticmethod
    def attend(q: Tensor) -> Tensor:
        q = q.view(1, 8, 1, 16).transpose(1, 2)
        return flex_attention(q, q, q, score_mod=lambda score, b, h, i, j: score + (i - j))


Wanted = Callable[[Any, Tensor], Tensor]
# For each path, the result if 1 is added there.
COND: dict[str, Wanted] = {
    "x": lambda m, x: m(x + 1),
    "GraphModuleImpl.linear": lambda m, x: (m.a(x) + 1).relu() * 2,
    "GraphModuleImpl.relu": lambda m, x: (m.a(x).relu() + 1) * 2,
    "GraphModuleImpl.output|sub_0": lambda m, x: (m.a(x).relu() + 1) * 2,
    "GraphModuleImpl.a_weight": lambda m, x: linear(x, m.a.weight + 1, m.a.bias).relu() * 2,
    "a_weight": lambda m, x: linear(x, m.a.weight + 1, m.a.bias).relu() * 2,
    "b_weight": lambda m, x: m(x),  # of the branch that is not taken
    "mul": lambda m, x: m(x) + 1,
}


@pytest.mark.parametrize("grad", [False, True], ids=["without gradients", "with gradients"])
def test_cond(grad: bool) -> None:
    torch.manual_seed(0)
    model, x = Cond(), torch.ones(2, 4)
    with torch.set_grad_enabled(grad):
        bare, other = model(x), model(-x)
        pg = PatchableGraph(model, x)
        assert names(pg.graph.GraphModuleImpl)[-3:] == ["linear", "relu", "output"]
        assert torch.equal(pg(x), bare) and torch.equal(pg(-x), other)
        for path, wanted in COND.items():
            expected = wanted(model, x)
            with pg.patch({path: AddPatch(value=1.0)}):
                if grad and path not in ("x", "mul"):
                    # The operator has a backward of its own, which does not know patches of what it reads or computes.
                    with pytest.raises(PatchError, match="inside a torch.autograd.Function"):
                        pg(x)
                else:
                    assert torch.equal(pg(x), expected), path
        assert torch.equal(pg(x), bare)


def test_while_loop() -> None:
    torch.manual_seed(0)
    model, x = While(), torch.ones(2, 4)
    with torch.no_grad():
        bare = model(x)
        pg = PatchableGraph(model, x)
        bodies = [name for name in names(pg.graph) if "tanh" in names(getattr(pg.graph, name))]
        assert len(bodies) == 3 and torch.equal(pg(x), bare)
        values = [x]
        for _ in bodies:
            values.append(model.a(values[-1]).tanh())
        for at, name in enumerate(bodies):
            with pg.patch({f"{name}.tanh": [probe := ProbePatch(), AddPatch(value=1.0)]}):
                patched = pg(x)
            assert torch.equal(probe.activation, values[at + 1]), name
            expected = values[at + 1] + 1
            for _ in bodies[at + 1 :]:
                expected = model.a(expected).tanh()
            assert torch.equal(patched, expected * 2), name


@COMPILED
def test_flex_attention() -> None:
    torch.manual_seed(0)
    model, x = Flex(), torch.randn(8, 16)
    with torch.no_grad():
        bare = model(x)
        pg = PatchableGraph(model, x)
        assert torch.equal(pg(x), bare)
        with pg.patch({"q.output": AddPatch(value=1.0), "_safe_softmax": (softmax := ProbePatch())}):
            assert torch.equal(pg(x), model.attend(model.q(x) + 1) * 2)
        assert torch.allclose(softmax.activation.sum(-1), torch.ones(1, 1, 8))
        with pg.patch({"_safe_softmax": AddPatch(value=1.0)}):
            q = model.q(x).view(1, 8, 1, 16).transpose(1, 2)
            assert torch.allclose(pg(x), (model.attend(model.q(x)) + q.sum(2, keepdim=True)) * 2, atol=1e-5)


FIRST = """
import torch
from torch import nn
from libgraphpatch import AddPatch, PatchableGraph
assert "torch._dynamo" not in __import__("sys").modules, "nothing has used torch.compile yet"

class Cond(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: self.a(x).relu(), lambda x: self.b(x).sin(), (x,)) * 2

model, x = Cond(), torch.ones(2, 4)
with torch.no_grad():
    pg = PatchableGraph(model, x)
    expected = (model.a(x).relu() + 1) * 2
    tree = repr(pg.graph)
    with pg.patch({"GraphModuleImpl.relu": AddPatch(value=1.0)}):
        assert torch.equal(pg(x), expected)
    assert repr(PatchableGraph(model, x).graph) == tree
print(tree)
"""


def test_the_run_in_which_torch_first_compiles() -> None:
    """What torch computes while it compiles is no part of the run."""
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    top = [line.removeprefix("├─").split(":")[0] for line in lines if line.startswith("├─")]
    expected = ["x", "sum_1", "gt", "is_nonzero", "a_bias", "a_weight", "b_bias", "b_weight", "GraphModuleImpl", "mul"]
    assert top == expected, done.stdout
