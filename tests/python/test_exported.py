"""Exported programs: the scopes, names, values, patches and gradients of the model that was exported."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, NodePath, PatchableGraph, ProbePatch, ZeroPatch


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.drop = nn.Linear(8, 16), nn.Linear(16, 8), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.down(torch.relu(self.up(x))))


class Block(nn.Module):
    """Takes a mask that may be missing, and returns two values."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp, self.norm = Mlp(), nn.LayerNorm(8)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y = self.mlp(self.norm(x))
        if mask is not None:
            y = y.masked_fill(mask, 0.0)
        first, second = y.split(4, -1)
        return x + y, first * second


class Model(nn.Module):
    """Modules in a list, one that is called twice, buffers (one of them written), sizes and a sequence."""

    shift: Tensor
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.h = nn.ModuleList([Block(), Block()])
        self.head = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        self.register_buffer("shift", torch.ones(8))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor, *, scale: Tensor) -> dict[str, Tensor]:
        self.seen.add_(1)
        x = x + self.shift
        for block in self.h:
            x, _ = block(x)
            x = x * scale
        x = self.h[0].mlp(x)
        return {"out": self.head(x) / x.shape[0], "last": x}


def plain(model: nn.Module) -> nn.Module:
    return export(model).module()


def export(model: nn.Module, strict: bool = False) -> Any:
    rows = torch.export.Dim("rows", min=2)
    x, scale = inputs()
    sizes = {"x": {0: rows}, "scale": None}
    return torch.export.export(model, (x,), {"scale": scale}, dynamic_shapes=sizes, strict=strict)


def strict(model: nn.Module) -> nn.Module:
    return export(model, strict=True).module()


def stored(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.export.save(export(model), file)
    file.seek(0)
    return torch.export.load(file).module()


def inputs(rows: int = 3) -> tuple[Tensor, Tensor]:
    return torch.linspace(-1, 1, rows * 8).view(rows, 8), torch.tensor(1.5)


def operations(graph: NodePath) -> list[str]:
    """The paths of all operations and parameters. The arguments and results of modules are not among them."""
    tree = repr(graph).splitlines()[1:]
    found, above = [], [""]
    for line in tree:
        indent, name, kind = re.fullmatch(r"([│ ]*)[├└]─(\w+): (.*)", line).groups()
        depth = len(indent) // 2
        del above[depth + 1 :]
        above.append(f"{above[depth]}.{name}" if above[depth] else name)
        if not re.fullmatch(r"Graph\(\d+\)|NoneType|tuple\(\d+\)|dict\(\d+\)|bool|float|str", kind):
            found.append(above[-1])
    return [path for path in found if not re.search(r"(^|\.)(output(\.\w+)?|x|input|scale|mask)$", path)]


FORMS: list[Callable[[nn.Module], nn.Module]] = [plain, strict, stored]


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: form.__name__)
def forms(request: pytest.FixtureRequest) -> tuple[PatchableGraph, PatchableGraph]:
    """The model, and a form of it."""
    model = Model().eval()
    x, scale = inputs()
    return (
        PatchableGraph(copy.deepcopy(model), x, scale=scale),
        PatchableGraph(request.param(model), x, scale=scale),
    )


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in ("out", "last"))


def test_names(forms: tuple[PatchableGraph, PatchableGraph]) -> None:
    eager, exported = forms
    assert operations(exported.graph) == operations(eager.graph)
    assert "_guards_fn" not in repr(exported.graph)


def test_each_operation_can_be_zeroed(forms: tuple[PatchableGraph, PatchableGraph]) -> None:
    eager, exported = forms
    x, scale = inputs(5)
    for path in operations(eager.graph):
        if ".split" in path or path.startswith(("seen", "add_")):
            continue
        with eager.patch({path: ZeroPatch()}), exported.patch({path: ZeroPatch()}):
            assert same(eager(x, scale=scale), exported(x, scale=scale)), path
    assert same(eager(x, scale=scale), exported(x, scale=scale))


def test_inputs_outputs_and_probes(forms: tuple[PatchableGraph, PatchableGraph]) -> None:
    eager, exported = forms
    x, scale = inputs()
    probes = []
    for pg in forms:
        probe: ProbePatch = ProbePatch()
        with pg.patch(
            {
                "x": AddPatch(value=0.25),
                "h_1.mlp.x": AddPatch(value=1.0, slice=(0,)),
                "h_0.mlp.up.output": ZeroPatch(slice=(slice(None), 0)),
                "h_0_mlp.down.linear": probe,
            }
        ):
            result = pg(x, scale=scale)
        probes.append((probe.activation, result))
    assert torch.equal(probes[0][0], probes[1][0]) and same(probes[0][1], probes[1][1])


def test_gradients(forms: tuple[PatchableGraph, PatchableGraph]) -> None:
    gradients = []
    for pg in forms:
        x, scale = inputs()
        x.requires_grad_()
        with pg.patch({"h_0.mlp.relu": AddPatch(value=0.5), "h_1.mlp.down.linear": ZeroPatch(slice=(0,))}):
            pg(x, scale=scale)["out"].sum().backward()
        gradients.append(x.grad)
    assert torch.equal(gradients[0], gradients[1])


def test_an_unflattened_program() -> None:
    x, scale = inputs()
    model = Model().eval()
    program = torch.export.unflatten(export(model))
    exported, eager = PatchableGraph(program, x, scale=scale), PatchableGraph(model, x, scale=scale)
    # torch.export drops operations whose results are not used.
    names = [path for path in operations(eager.graph) if not re.fullmatch(r"h_[01]\.(split.*|mul)", path)]
    assert [path for path in operations(exported.graph) if not re.search(r"(^|\.)(kw)?args\b", path)] == names
    with exported.patch({"h_0.mlp.relu": ZeroPatch()}), eager.patch({"h_0.mlp.relu": ZeroPatch()}):
        assert same(exported(x, scale=scale), eager(x, scale=scale))


def test_decompositions_keep_scopes() -> None:
    x, scale = inputs()
    model = Model().eval()
    program = export(model).run_decompositions()
    exported, eager = PatchableGraph(program.module(), x, scale=scale), PatchableGraph(model, x, scale=scale)
    assert "h_0.mlp.up.addmm" in operations(exported.graph)
    with exported.patch({"h_0.mlp.up.addmm": ZeroPatch()}), eager.patch({"h_0.mlp.up.linear": ZeroPatch()}):
        assert torch.allclose(exported(x, scale=scale)["out"], eager(x, scale=scale)["out"])


def test_the_source_of_an_operation() -> None:
    x, scale = inputs()
    pg = PatchableGraph(plain(Model().eval()), x, scale=scale)
    assert "torch.relu(self.up(x))" in str(pg.graph.h_0.mlp.relu._code)


def test_hooks_and_a_wrong_input() -> None:
    x, scale = inputs()
    program = plain(Model().eval())
    seen = []
    program.register_forward_hook(lambda module, args, output: seen.append(output["out"].shape))
    pg = PatchableGraph(program, x, scale=scale)
    with pg.patch({"h_0.mlp.relu": ZeroPatch()}):
        pg(x, scale=scale)
        with pytest.raises(Exception, match="(?i)guard|constraint|expected"):
            pg(x[:, :4], scale=scale)
    assert len(seen) == 2


def test_a_program_whose_graph_was_changed() -> None:
    x, scale = inputs()
    program = plain(Model().eval())
    pg = PatchableGraph(program, x, scale=scale)
    relu = next(node for node in program.graph.nodes if node.name == "relu_1")
    relu.target = torch.ops.aten.sigmoid.default
    program.recompile()
    bare = program(x, scale=scale)
    assert same(pg.record(x, scale=scale), bare)
    assert "h_1.mlp.sigmoid" in operations(pg.graph)


def test_operations_out_of_their_scopes_are_listed_flat_with_a_note() -> None:
    x, scale = inputs()
    program = plain(Model().eval())
    late = next(node for node in program.graph.nodes if node.name == "mul")
    late.meta["nn_module_stack"] = {}
    relu = next(node for node in program.graph.nodes if node.name == "relu_1")
    first = next(node for node in program.graph.nodes if node.name == "relu")
    relu.meta["nn_module_stack"] = first.meta["nn_module_stack"]
    program.recompile()
    pg = PatchableGraph(program, x, scale=scale)
    assert any("reordered across modules" in note for note in pg.notes)
    assert "relu_1" in operations(pg.graph)
