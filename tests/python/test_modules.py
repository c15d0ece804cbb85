"""Modules as they are called: inputs by name, hooks, sharing, recursion, exceptions, and modules that come and go."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import AddPatch, CustomPatch, PatchableGraph, PatchError, ProbePatch, ReplacePatch, ZeroPatch
from nets import Block, Calls, Net, same


class Signature(nn.Module):
    def forward(
        self, x: Tensor, /, y: Tensor, z: float = 2.0, *rest: Tensor, k: Tensor, scale: float = 1.5, **more: Any
    ) -> Tensor:
        result = x - 2 * y + z * k * scale
        for index, value in enumerate((*rest, *more.values())):
            result = result + (index + 3) * value
        return result


@pytest.mark.parametrize(
    "form",
    [
        lambda f, a: f(a["x"], a["y"], a["z"], *a["rest"], k=a["k"], scale=a["scale"], **a["more"]),
        lambda f, a: f(a["x"], a["y"], a["z"], k=a["k"], scale=a["scale"], **a["more"]) if not a["rest"] else None,
        lambda f, a: f(a["x"], y=a["y"], k=a["k"], **a["more"]) if not a["rest"] else None,
    ],
)
def test_inputs_go_by_the_names_of_forward(form: Any) -> None:
    tensors = [torch.randn(3) for _ in range(6)]
    for rest in ((tensors[3], tensors[4]), ()):
        given = {
            "x": tensors[0],
            "y": tensors[1],
            "z": 2.0,
            "rest": rest,
            "k": tensors[2],
            "scale": 1.5,
            "more": {"x": tensors[5], "u": 2.0},
        }
        module = Signature()
        if form(module, given) is None:
            continue
        pg = form(lambda *args, **kwargs: PatchableGraph(module, *args, **kwargs), given)
        assert [str(node) for node in pg.graph][:7] == ["x", "y", "z", "rest", "k", "scale", "more"]
        for path in ("x", "y", "z", "k", "scale", "more|x", "more|u", *(["rest|sub_1"] if rest else [])):
            with pg.patch({path: [probe := ProbePatch(), ReplacePatch(value=9.0)]}):
                patched = form(pg, given)
            name, _, element = path.partition("|")
            changed = dict(given)
            nine = torch.full((3,), 9.0) if isinstance(probe.activation, Tensor) else 9.0
            if name == "rest":
                changed["rest"] = (rest[0], nine)
            elif name == "more":
                changed["more"] = {**given["more"], element: nine}
            else:
                changed[name] = nine
            x, y, z, others, k, scale, more = changed.values()
            assert same(patched, module(x, y, z, *others, k=k, scale=scale, **more)), path


def test_a_default_that_is_given_by_position_only() -> None:
    class Positional(nn.Module):
        def forward(self, x: Tensor, a: float = 1.0, b: float = 2.0, /) -> Tensor:
            return x * a + b

    module, x = Positional(), torch.randn(3)
    pg = PatchableGraph(module, x)
    with pg.patch({"b": AddPatch(value=3.0)}):
        short, long = pg(x), pg(x, 4.0)
    assert same(short, x * 1.0 + 5.0) and same(long, x * 4.0 + 5.0)
    assert same(pg(x), module(x))


def test_wrong_arguments_fail_as_in_the_module() -> None:
    pg = PatchableGraph(Net(), x := torch.randn(3, 4))
    with pg.patch({"x": ZeroPatch()}):
        for args, kwargs in [((), {}), ((x, x), {}), ((x,), {"wrong": 1})]:
            with pytest.raises(TypeError, match="forward()"):
                pg(*args, **kwargs)
        assert pg(x).any()


def test_the_users_hooks_and_ours_run_in_order() -> None:
    log: list[str] = []
    inner = nn.Linear(4, 4)
    module, x = Calls(inner), torch.randn(3, 4)
    inner.register_forward_pre_hook(lambda module, args: (log.append("pre hook"), (args[0] * 2,))[1])
    inner.register_forward_hook(lambda module, args, output: (log.append("hook"), output * 5)[1])
    inner.register_forward_hook(lambda module, args, output: log.append("always"), always_call=True)

    def logged(name: str) -> CustomPatch[Tensor]:
        return CustomPatch(custom_op=lambda value: (log.append(name), value + 1)[1])

    pg = PatchableGraph(module, x)
    log.clear()
    with pg.patch({"inner.input": logged("input"), "inner.linear": logged("linear"), "inner.output": logged("output")}):
        patched = pg(x)
    assert log == ["input", "pre hook", "linear", "output", "hook", "always"]
    linear = nn.functional.linear((x + 1 + 1) * 2, inner.weight, inner.bias)
    assert same(patched, (linear + 1 + 1) * 5 * 3)


def test_hooks_that_are_always_called_are_called_when_a_patch_raises() -> None:
    module, called = Net(), []
    pg = PatchableGraph(module, x := torch.randn(3, 4))
    module.register_forward_hook(lambda module, args, output: called.append(output), always_call=True)
    with pg.patch({"blocks_0.sigmoid": ZeroPatch(slice=9)}), pytest.raises(PatchError):
        pg(x)
    assert called == [None]


def test_the_first_call_of_several_in_a_list() -> None:
    """The later calls of ``layers.0`` have the numbers that are free."""

    class Lists(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x)
            return self.layers[0](x)

    module, x = Lists(), torch.randn(3, 4)
    pg = PatchableGraph(module, x)
    assert [str(node) for node in pg.graph] == ["x", "layers_0", "layers_1", "layers_2", "output"]
    assert pg.graph["layers_0_0.output"] == pg.graph.layers_0.output == pg.graph.layers_0_0.output
    first, second = module.layers
    with pg.patch({"layers_0_0.output": AddPatch(value=1.0)}):
        assert same(pg(x), first(second(first(x) + 1)))
    for once in ("layers_1_0.output", "layers_2_0.output"):
        with pytest.raises(KeyError):
            pg.patch({once: AddPatch(value=1.0)})


def test_modules_called_twice_and_shared_under_two_names() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = self.a
            self.other = nn.ModuleDict({"c": nn.Sequential(self.a, nn.Tanh())})

        def forward(self, x: Tensor) -> Tensor:
            return self.other["c"](self.b(self.a(x)))

    module, x = Twice(), torch.randn(3, 4)
    pg = PatchableGraph(module, x)
    assert [str(node) for node in pg.graph] == ["x", "a", "a_1", "other_c", "output"]
    assert [str(node) for node in pg.graph.other_c][1:3] == ["other_c.sub_0", "other_c.sub_1"]
    linear = module.a
    for path, expected in {
        "a_0.output": lambda: linear(linear(linear(x) + 1)).tanh(),
        "a.output": lambda: linear(linear(linear(x) + 1)).tanh(),
        "a_1.output": lambda: linear(linear(linear(x)) + 1).tanh(),
        "other_c.sub_0.output": lambda: (linear(linear(linear(x))) + 1).tanh(),
        "a_1.bias": lambda: linear(linear(linear(x)) + 1).tanh(),
    }.items():
        with pg.patch({path: AddPatch(value=1.0)}):
            patched = pg(x)
        torch.testing.assert_close(patched, expected())


class Recursive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.child = Calls(nn.Identity())

    def forward(self, x: Tensor, depth: int = 2) -> Tensor:
        x = self.linear(x)
        return self(x, depth - 1) if depth else x


def test_a_module_that_calls_itself() -> None:
    module, x = Recursive(), torch.randn(3, 4)
    pg, linear = PatchableGraph(module, x), module.linear
    with pg.patch({"linear.output": AddPatch(value=1.0)}):
        assert same(pg(x), linear(linear(linear(x) + 1)))
    with pg.patch({"Recursive.Recursive.linear.output": AddPatch(value=1.0)}):
        assert same(pg(x), linear(linear(linear(x))) + 1)
    with pg.patch({"Recursive.depth": ReplacePatch(value=0)}):
        assert same(pg(x), linear(linear(x)))


def test_a_call_of_the_root_from_below_is_no_run_of_its_own() -> None:
    class Back(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + outer(x, again=False)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.back = Back()

        def forward(self, x: Tensor, again: bool = True) -> Tensor:
            return self.back(x * 2) if again else x.cos()

    outer, x = Outer(), torch.randn(3)
    pg = PatchableGraph(outer, x)
    with pg.patch({"mul": ZeroPatch()}):
        assert same(pg(x), (x * 0) + (x * 0).cos())


class Catches(nn.Module):
    """Catches the exception of a module that it calls, and continues."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()

    def forward(self, x: Tensor, wrong: bool = False) -> Tensor:
        try:
            x = self.block(x[:, :3] if wrong else x)
        except RuntimeError:
            x = x.exp()
        return x * 2


def test_exceptions_that_the_model_catches() -> None:
    module, x = Catches(), torch.randn(3, 4)
    pg = PatchableGraph(module, x)
    pg.record(x, wrong=True)
    with pg.patch({"mul": AddPatch(value=1.0), "exp": (probe := ProbePatch()), "block.up.bias": ZeroPatch()}):
        assert same(pg(x, wrong=True), x.exp() * 2 + 1) and same(probe.activation, x.exp())
        up = nn.functional.linear(x, module.block.up.weight, torch.zeros(6))
        assert torch.allclose(pg(x), (x + module.block.down(torch.sigmoid(up) * 2)) * 2 + 1)


def test_exceptions_that_the_caller_catches() -> None:
    net, x = Net(), torch.randn(3, 4)
    pg, tree = PatchableGraph(net, x), repr(PatchableGraph(net, x).graph)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="mat1"):
            pg.record(x[:, :3])
    assert repr(PatchableGraph(net, x).graph) == tree
    with pg.patch({"blocks_1.output": ZeroPatch()}):
        with pytest.raises(RuntimeError, match="mat1"):
            pg(x[:, :3])
        assert not pg(x).any()
    assert same(pg(x), net(x))


def test_a_model_that_swallows_a_patchs_error_raises_its_own_later() -> None:
    class Swallows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            try:
                return x.exp()
            except RuntimeError:
                raise RuntimeError("the model's own") if x.sum() > 0 else ArithmeticError("another") from None

    def fail(value: Tensor) -> Tensor:
        raise LookupError("the patch's")

    pg = PatchableGraph(Swallows(), torch.zeros(3))
    with pg.patch({"exp": CustomPatch(custom_op=fail)}):
        with pytest.raises(RuntimeError, match="the model's own"):
            pg(torch.ones(3))
        with pytest.raises(ArithmeticError):
            pg(-torch.ones(3))


def test_modules_that_come_go_and_change_places() -> None:
    net, x = Net(), torch.randn(3, 4)
    pg = PatchableGraph(net, x)
    first, second = net.blocks

    def patched(path: str, expected: Tensor) -> None:
        probe = ProbePatch()
        with pg.patch({path: [probe, ZeroPatch()]}):
            pg(x)
        assert same(probe.activation, expected.detach())

    net.blocks[0], net.blocks[1] = second, first
    patched("blocks_0.output", second(x))
    patched("blocks_1.up.weight", first.up.weight)
    net.blocks[0] = third = Block()
    patched("blocks_0.up.bias", third.up.bias)
    net.blocks.append(second)
    pg.record(x)
    patched("blocks_2.up.output", second.up(first(third(x))))
    with pg.patch({"blocks_0.output": (probe := ProbePatch()), "blocks_1.output": ZeroPatch()}):
        pg(x)
        assert same(probe.activation, third(x).detach())
        net.blocks.insert(0, second)
        pg(x)
        assert same(probe.activation, second(x).detach())
        del net.blocks[0]
        pg(x)
        assert same(probe.activation, third(x).detach())


def test_a_forward_that_is_replaced() -> None:
    net, x = Net(), torch.randn(3, 4)
    pg, block = PatchableGraph(net, x), net.blocks[0]
    old = block.forward
    block.forward = lambda hidden, x=None: old(hidden) * 2
    pg.record(x)
    with pg.patch({"blocks_0.hidden": AddPatch(value=1.0)}):
        assert same(pg(x), net.blocks[1](old(x + 1) * 2))


def test_modules_made_in_the_forward() -> None:
    class Makes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.Threshold(0.5, -1.0)(x) * 2

    pg = PatchableGraph(module := Makes(), x := torch.randn(3, 4))
    with pg.patch({"Threshold.output": AddPatch(value=1.0)}):
        for _ in range(3):
            assert same(pg(x), (nn.Threshold(0.5, -1.0)(x) + 1) * 2)
    assert same(pg(x), module(x))
