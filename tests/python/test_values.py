"""A patch changes the values downstream of its node, and nothing else."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from libgraphpatch import AddPatch, CustomPatch, PatchableGraph, PatchError, ProbePatch, ReplacePatch, ZeroPatch
from nets import Function, name_of, same


def out_of(x: Tensor) -> Tensor:
    buffer = torch.zeros(3, 4)
    torch.add(x, 1, out=buffer)
    return buffer * 2


# A function, an operation in it, and the same function by hand, where `p` applies the patch to that operation's result.
MEMORY: dict[str, tuple[Callable[[Tensor], Any], str, Callable[[Tensor, Any], Any]]] = {
    "view": (lambda x: ((y := x + 0), y.view(12), y), "view", lambda x, p: (x, p(x.view(12)), x)),
    "expand": (
        lambda x: ((y := x[:1] + 0), y.expand(3, 4), y),
        "expand",
        lambda x, p: (x[:1], p(x[:1].expand(3, 4)), x[:1]),
    ),
    "transpose": (lambda x: ((y := x + 0), y.t() * 2, y), "t", lambda x, p: (x, p(x.t()) * 2, x)),
    "dropout in eval": (lambda x: ((y := x + 0), F.dropout(y, 0.5, False), y), "dropout", lambda x, p: (x, p(x), x)),
    "reshape": (lambda x: ((y := x + 0), y.reshape(4, 3), y), "reshape", lambda x, p: (x, p(x.reshape(4, 3)), x)),
    "to": (lambda x: ((y := x + 0), y.to(torch.float32), y), "to", lambda x, p: (x, p(x), x)),
    "in place": (lambda x: ((y := x + 0), y.mul_(2), y), "mul_", lambda x, p: (p(x * 2), p(x * 2), p(x * 2))),
    "relu in place": (lambda x: ((y := x + 0), y.relu_(), y), "relu_", lambda x, p: (p(x.relu()),) * 3),
    "out": (lambda x: (out_of(x), x, x), "add", lambda x, p: (p(x + 1) * 2, x, x)),
    "of an earlier value": (lambda x: ((y := x + 0), y * 2, y), "mul", lambda x, p: (x, p(x * 2), x)),
}


@pytest.mark.parametrize("name", MEMORY)
@pytest.mark.parametrize(
    "patch, change",
    [(AddPatch(value=0.5), lambda t: t + 0.5), (CustomPatch(custom_op=lambda t: t * 3), lambda t: t * 3)],
    ids=name_of,
)
def test_operands_never_change(name: str, patch: Any, change: Callable[[Tensor], Tensor]) -> None:
    function, operation, by_hand = MEMORY[name]
    x = torch.randn(3, 4)
    given = x.clone()
    pg = PatchableGraph(Function(function), x)
    # `x + 0` is the first add.
    path = "add_1" if operation == "add" and "add_1" in dir(pg.graph) else operation
    with pg.patch({path: patch}):
        patched = pg(x)
    assert same(x, given)
    assert all(map(same, patched, by_hand(x, change)))


def test_weights_buffers_and_what_the_caller_gave_never_change() -> None:
    module, x = nn.BatchNorm1d(4).eval(), torch.randn(3, 4)
    pg = PatchableGraph(module, x)
    state, given = {name: value.clone() for name, value in module.state_dict().items()}, x.clone()
    for path in ("weight", "bias", "running_mean", "running_var", "input"):
        expected = {**state, "input": x}
        expected[path] = expected[path] + 2
        with pg.patch({path: AddPatch(value=2.0)}):
            patched = pg(x)
        assert same(
            patched,
            F.batch_norm(
                expected["input"],
                expected["running_mean"],
                expected["running_var"],
                expected["weight"],
                expected["bias"],
            ),
        ), path
        assert same(x, given) and all(same(value, state[name]) for name, value in module.state_dict().items())


def test_an_output_that_is_a_modules_own_tensor_is_not_written() -> None:
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.arange(6.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.table[:3]

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cached = Cached()

        def forward(self, x: Tensor) -> Tensor:
            return self.cached(x) * 1

    module = Outer()
    pg = PatchableGraph(module, torch.zeros(1))
    with pg.patch({"cached.output": ZeroPatch()}):
        assert not pg(torch.zeros(1)).any()
    assert same(module.cached.table, torch.arange(6.0))


Pair = namedtuple("Pair", "first second")


@dataclasses.dataclass
class Record:
    tensor: Tensor
    scale: float = 2.0
    twice: Any = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.twice = self.tensor * 2


@dataclasses.dataclass(frozen=True)
class Frozen:
    tensor: Tensor


def containers(x: Tensor) -> dict[str, Any]:
    return {
        "tuple": (x, 1),
        "list": [x, [x, None]],
        "dict": {"a": x, "b": {"c": x}},
        "ordered": OrderedDict(a=x),
        "default": defaultdict(list, a=x),
        "named": Pair(x, 3),
        "record": Record(x),
        "frozen": Frozen(x),
        "output": BaseModelOutput(last_hidden_state=x, hidden_states=(x, x)),
        "size": torch.Size([2, 3]),
        "maximum": torch.max(x, 0),
    }


DIGS = {
    "tuple|sub_0": lambda c: c["tuple"][0],
    "list|sub_1.sub_0": lambda c: c["list"][1][0],
    "dict|a": lambda c: c["dict"]["a"],
    "dict|b.c": lambda c: c["dict"]["b"]["c"],
    "ordered|a": lambda c: c["ordered"]["a"],
    "default|a": lambda c: c["default"]["a"],
    "named|sub_0": lambda c: c["named"].first,
    "record|tensor": lambda c: c["record"].tensor,
    "record|twice": lambda c: c["record"].twice,
    "frozen|tensor": lambda c: c["frozen"].tensor,
    "output|last_hidden_state": lambda c: c["output"].last_hidden_state,
    "output|hidden_states.sub_1": lambda c: c["output"].hidden_states[1],
    "size|sub_1": lambda c: torch.tensor(c["size"][1]),
    "maximum|sub_0": lambda c: c["maximum"].values,
}


def leaves(value: Any) -> list[Any]:
    if dataclasses.is_dataclass(value) and not isinstance(value, dict):
        return leaves(vars(value))
    if isinstance(value, dict):
        return [leaf for element in value.values() for leaf in leaves(element)]
    if isinstance(value, (tuple, list)):
        return [leaf for element in value for leaf in leaves(element)]
    return [torch.as_tensor(value) if isinstance(value, (int, float)) else value]


class Containers(nn.Module):
    def forward(self, **given: Any) -> Any:
        return given


class PassesOn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Containers()

    def forward(self, given: dict[str, Any]) -> Any:
        return self.inner(**given)


@pytest.mark.parametrize("where", ["given", "inner.given", "inner.output", "output"])
@pytest.mark.parametrize("dig", DIGS)
def test_elements_of_containers(dig: str, where: str) -> None:
    given = containers(torch.randn(2, 3))
    before = [leaf if leaf is None else leaf.clone() for leaf in leaves(given)]
    pg = PatchableGraph(PassesOn(), given)
    path = f"{where}|{dig.replace('|', '.')}"
    with pg.patch({path: [(probe := ProbePatch()), ReplacePatch(value=7)]}):
        patched = pg(given)
    assert torch.equal(torch.as_tensor(probe.activation), DIGS[dig](given))
    assert (DIGS[dig](patched) == 7).all()
    # One leaf of the result has changed; types and the caller's containers have not.
    now = leaves(patched)
    assert sum(old is not new and not torch.equal(old, new) for old, new in zip(before, now)) == 1
    assert [type(patched[name]) for name in given] == [type(value) for value in given.values()]
    assert all(old is new or torch.equal(old, new) for old, new in zip(before, leaves(given)))


class Numbers(nn.Module):
    def forward(
        self, x: Tensor, count: int = 3, scale: float = 0.5, flag: bool = True, name: str = "n", rest: Any = None
    ) -> Tensor:
        return x * count + scale if flag else x


@pytest.mark.parametrize(
    "path, patch, changed",
    [
        ("count", AddPatch(value=2), {"count": 5}),
        ("count", ZeroPatch(), {"count": 0}),
        ("count", ReplacePatch(value=7), {"count": 7}),
        ("count", CustomPatch(custom_op=lambda n: n * n), {"count": 9}),
        ("scale", AddPatch(value=0.1), {"scale": 0.6}),
        ("scale", CustomPatch(custom_op=lambda n: n / 3), {"scale": 0.5 / 3}),
        ("flag", ReplacePatch(value=False), {"flag": False}),
        ("flag", CustomPatch(custom_op=lambda flag: not flag), {"flag": False}),
        ("scale", ZeroPatch(), {"scale": 0.0}),
    ],
    ids=name_of,
)
def test_plain_numbers(path: str, patch: Any, changed: dict[str, Any]) -> None:
    module, x = Numbers(), torch.randn(3, 4)
    pg = PatchableGraph(module, x)
    for kwargs in ({}, {"count": 3, "scale": 0.5, "flag": True}):
        before, after = ProbePatch(), ProbePatch()
        with pg.patch({path: [before, patch, after]}):
            patched = pg(x, **kwargs)
        assert same(patched, module(x, **changed))
        old = {"count": 3, "scale": 0.5, "flag": True}[path]
        assert type(before.activation) is type(old) and before.activation == old
        assert type(after.activation) is type(old) and after.activation == pytest.approx(changed[path])


def test_a_number_is_not_rounded_in_silence() -> None:
    pg = PatchableGraph(Numbers(), x := torch.randn(3, 4))
    with pg.patch({"count": CustomPatch(custom_op=lambda n: n / 2)}):
        with pytest.raises(TypeError, match="1.5 for the int 3"):
            pg(x)
    with pg.patch({"rest": ZeroPatch()}), pytest.raises(PatchError, match="rest"):
        pg(x)
    with pytest.raises(KeyError, match="name: is a str, which no patch can keep or change"):
        pg.patch({"name": ZeroPatch()})


def test_tensors_without_elements_and_of_many_dtypes() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.int64, torch.uint8, torch.bool):
        for sizes in ((3, 4), (0, 4), ()):
            x = torch.ones(sizes).to(dtype)
            pg = PatchableGraph(Function(lambda x: (x.clone(), x)), x)
            with pg.patch({"clone": [(probe := ProbePatch()), ZeroPatch()]}):
                patched, given = pg(x)
            assert same(patched, torch.zeros_like(x)) and same(given, torch.ones_like(x))
            assert same(probe.activation, given)


KINDS: dict[str, Callable[[], Tensor]] = {
    "coo": lambda: torch.eye(3).to_sparse(),
    "csr": lambda: torch.eye(3).to_sparse_csr(),
    "quantized": lambda: torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.quint8),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "conj": lambda: torch.ones(3, dtype=torch.complex64).conj(),
    "parameter": lambda: nn.Parameter(torch.ones(3)),
}


def parts(tensor: Tensor) -> list[Tensor]:
    """Its values in plain tensors."""
    if tensor.is_nested:
        return list(tensor.unbind())
    if tensor.is_quantized:
        return [tensor.dequantize()]
    return [tensor if tensor.layout == torch.strided else tensor.to_dense()]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_of_tensors_are_patched_or_refused_but_never_written(kind: str) -> None:
    value, x = KINDS[kind](), torch.ones(1)
    kept = value.clone()
    pg = PatchableGraph(Function(lambda x: (value, x + 1)), x)
    for patch in (ZeroPatch(), AddPatch(value=1.0), ProbePatch()):
        try:
            with pg.patch({"output|sub_0": patch}):
                pg(x)
        except (PatchError, KeyError) as error:
            assert "output|sub_0" in str(error)
        assert same(pg(x)[1], x + 1)
        assert all(map(torch.equal, parts(value), parts(kept)))
