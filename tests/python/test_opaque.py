"""Modules that are compiled, scripted or wrapped: their inside has the right names, or a note tells why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
import torch.distributed as dist
from torch import Tensor, nn

from libgraphpatch import (
    AddPatch,
    CustomPatch,
    PatchableGraph,
    PatchError,
    ProbePatch,
    ReplacePatch,
    ZeroPatch,
    _module_call,
)
from nets import Block, Calls, Function, Net, same

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Backend:
    """A backend of torch.compile that keeps the graphs it gets."""

    def __init__(self) -> None:
        torch._dynamo.reset()
        self.graphs: list[list[str]] = []

    def __call__(self, module: torch.fx.GraphModule, inputs: Any) -> Any:
        self.graphs.append([f"{node.name} {node.target}" for node in module.graph.nodes])
        return module.forward


def test_torch_compile_makes_the_graphs_that_it_makes_without_us(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = Net(), torch.randn(3, 4)
    pg = PatchableGraph(net, x)
    with monkeypatch.context() as without:
        without.setattr(nn.Module, "__call__", _module_call._original)
        without.setattr(torch._dynamo.variables.nn_module, "unpatched_nn_module_call", _module_call._original)
        bare = Backend()
        torch.compile(net, backend=bare, fullgraph=True)(x)
    ours = Backend()
    compiled = torch.compile(net, backend=ours, fullgraph=True)
    assert torch.allclose(compiled(x), net(x))
    with PatchableGraph(other := Net(), x).patch({"blocks_0.output": ZeroPatch()}):
        compiled(x), other(x)
    assert ours.graphs == bare.graphs and len(ours.graphs) == 1
    assert same(pg(x), net(x))


def test_patches_hold_in_a_compiled_copy_of_the_patched_module() -> None:
    net, x = Net(), torch.randn(3, 4)
    pg, compiled = PatchableGraph(net, x), torch.compile(net, backend=Backend())
    bare = compiled(x)
    with pg.patch({"output": ZeroPatch()}):
        assert not compiled(x).any() and not pg(x).any()
    assert same(compiled(x), bare) and not pg.notes


SCRIPTS: dict[str, Callable[[nn.Module, Tensor], nn.Module]] = {
    "scripted": lambda module, x: torch.jit.script(module),
    "traced": lambda module, x: torch.jit.trace(module, x),
}


@pytest.mark.parametrize("kind", SCRIPTS)
def test_a_scripted_module_shows_its_inside(kind: str) -> None:
    block, x = Block(), torch.randn(3, 4)
    pg = PatchableGraph(Calls(SCRIPTS[kind](block, x)), x)
    eager = PatchableGraph(Calls(block), x)
    assert repr(pg.graph) == repr(eager.graph)
    for path in ("inner.x", "inner.up.weight", "inner.up.linear", "inner.sigmoid", "inner.down.input", "inner.output"):
        for patch in (AddPatch(value=1.0, slice=0), CustomPatch(custom_op=lambda value: value * 2)):
            results = []
            for one in (pg, eager):
                with one.patch({path: [probe := ProbePatch(), patch]}):
                    results.append((one(x), probe.activation))
            assert same(results[0][0], results[1][0]) and same(results[0][1], results[1][1]), path
    with pg.patch({"inner.sigmoid": ZeroPatch(slice=9)}):
        with pytest.raises(PatchError, match=r"inner.sigmoid.*shape \(3, 6\)"):
            pg(x)
    assert same(pg(x), eager(x))


def test_exceptions_inside_a_scripted_module() -> None:
    class Checks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x + 1
            if bool(x.sum() > 100):
                raise ValueError("too big")
            return y * 2

    class Retries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.checks = torch.jit.script(Checks())

        def forward(self, x: Tensor) -> Tensor:
            try:
                x = self.checks(x)
            except Exception:
                x = x * 0
            return x.exp() + self.checks(x - x)

    module, x = Retries(), torch.randn(3, 4)
    pg = PatchableGraph(module, x)
    with pg.patch({"checks_1.add": AddPatch(value=1.0), "exp": AddPatch(value=3.0)}):
        for _ in range(2):
            assert same(pg(x + 1000), torch.ones(3, 4) + 3 + 4)
            assert same(pg(x), ((x + 1) * 2).exp() + 3 + 4)
    assert same(pg(x), module(x))


def test_a_traced_graph_module() -> None:
    net, x = Net(), torch.randn(3, 4)
    pg = PatchableGraph(torch.fx.symbolic_trace(net), x)
    with pg.patch({"blocks_0_up.output": (probe := ProbePatch()), "sigmoid_1": ReplacePatch(value=0.0)}):
        patched = pg(x)
    assert same(probe.activation, net.blocks[0].up(x).detach())
    hidden = net.blocks[0](x)
    assert same(patched, hidden + net.blocks[1].down(torch.zeros(3, 6)))
    with pg.patch({"output": ZeroPatch()}):
        assert list(torch.fx.symbolic_trace(Net())(x).shape) == [3, 4]


def test_an_exported_program() -> None:
    net, x = Net(), torch.randn(3, 4)
    pg = PatchableGraph(torch.export.export(net, (x,)).module(), x)
    with pg.patch({"blocks_0.sigmoid": ZeroPatch()}):
        patched = pg(x)
    block = net.blocks[0]
    assert same(patched, net.blocks[1](x + block.down(torch.zeros(3, 6))))


def test_tracing_and_scripting_while_patches_hold() -> None:
    net, x = Net(), torch.randn(3, 4)
    pg, bare = PatchableGraph(Net(), x), net(x)
    with pg.patch({"output": ZeroPatch()}):
        traced, scripted = torch.jit.trace(net, x), torch.jit.script(net.blocks[0])
        exported = torch.export.export(net, (x,)).module()
    assert same(traced(x), bare) and same(exported(x), bare) and same(scripted(x), net.blocks[0](x))


def test_higher_order_operators_and_transforms() -> None:
    class Twice(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient * 2

    x = torch.randn(3, 4)
    for function in (
        lambda x: torch.vmap(Twice.apply)(x).exp(),
        lambda x: torch.func.grad(lambda y: Twice.apply(y).sum())(x).exp(),
        lambda x: torch.func.vmap(lambda row: row.cos())(x).exp(),
        lambda x: torch.func.jacrev(torch.sin)(x[0]).exp(),
    ):
        pg = PatchableGraph(Function(function), x)
        with pg.patch({"exp": [probe := ProbePatch(), ZeroPatch()]}):
            assert not pg(x).any()
        assert torch.equal(probe.activation, function(x))


def test_probes_inside_vmap_keep_all_of_it() -> None:
    x, y = torch.randn(3, 4), torch.randn(5)
    pg = PatchableGraph(Function(lambda x: torch.vmap(lambda row: torch.vmap(lambda z: (row * z).sin())(y))(x)), x)
    with pg.patch({"sin": (probe := ProbePatch())}):
        patched = pg(x)
    assert same(probe.activation, patched)


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    meeting = (
        tmp_path_factory.mktemp("group") / "meeting"
    )  # the processes meet by a file, because a free port may be taken a moment later
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_distributed_data_parallel(group: None) -> None:
    net, x = Net(), torch.randn(3, 4, requires_grad=True)
    parallel = nn.parallel.DistributedDataParallel(net)
    pg = PatchableGraph(parallel, x)
    assert [str(node) for node in pg.graph.module] == [f"module.{node}" for node in PatchableGraph(net, x).graph]
    with pg.patch({"module.blocks_0.output": AddPatch(value=1.0), "module.blocks_1.up.weight": ZeroPatch()}):
        y = pg(x)
    hidden, block = net.blocks[0](x) + 1, net.blocks[1]
    up = nn.functional.linear(hidden, torch.zeros(6, 4), block.up.bias)
    expected = hidden + block.down(torch.sigmoid(up) * 2)
    assert same(y, expected)
    y.sum().backward()
    reduced = net.blocks[0].up.weight.grad.clone()
    net.zero_grad()
    expected.sum().backward()
    assert same(net.blocks[0].up.weight.grad, reduced)


def test_fully_sharded_parameters(group: None) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    net, x = Net(), torch.randn(3, 4)
    plain = Net()
    plain.load_state_dict(net.state_dict())
    mesh = init_device_mesh("cpu", (1,))
    for block in net.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(net, mesh=mesh)
    pg = PatchableGraph(net, x)
    # The weights are new tensors in each call. Each has its node all the same.
    assert repr(pg.graph.blocks_0.up) == repr(PatchableGraph(plain, x).graph.blocks_0.up)
    with pg.patch({"blocks_0.up.weight": ZeroPatch()}):
        patched = pg(x)
    with PatchableGraph(plain, x).patch({"blocks_0.up.weight": ZeroPatch()}):
        assert torch.allclose(patched, plain(x)) and not torch.allclose(patched, pg(x))
    for path in ("blocks_0.output", "blocks_0.up.output", "blocks_0.sigmoid", "blocks_1.x"):
        with pg.patch({path: AddPatch(value=1.0)}), PatchableGraph(plain, x).patch({path: AddPatch(value=1.0)}):
            assert torch.allclose(pg(x), plain(x)), path
    assert torch.allclose(pg(x), plain(x))
