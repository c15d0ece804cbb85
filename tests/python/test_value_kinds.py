"""Buffers, parameters and outputs of every kind that libtorch has: a graph is made, and a patch is right or refused."""

import pytest
import torch
from torch import nn

from libgraphpatch import AddPatch, CustomPatch, PatchableGraph, PatchError, ProbePatch, RecordPatch, ZeroPatch

X = torch.ones(4, 4)
SMALL = (
    "uint1",
    "uint2",
    "uint4",
    "int4",
    "bits8",
    "bits1x8",
    "bits16",
    "float4_e2m1fn_x2",
    "complex32",
    "float8_e5m2",
)


def small(name):
    dtype = getattr(torch, name)
    try:
        return torch.empty(4, 4, dtype=dtype).zero_()
    except (RuntimeError, NotImplementedError):
        return torch.zeros(4, 4, dtype=torch.uint8 if dtype.itemsize == 1 else torch.uint16).view(dtype)


KINDS = {
    "sparse_coo": lambda: torch.eye(4).to_sparse(),
    "sparse_csr": lambda: torch.eye(4).to_sparse_csr(),
    "sparse_bsr": lambda: torch.eye(4).to_sparse_bsr((2, 2)),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "jagged": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    "mkldnn": lambda: torch.ones(4, 4).to_mkldnn(),
    "quantized": lambda: torch.quantize_per_tensor(X, 0.1, 0, torch.quint8),
    "quantized by channel": lambda: torch.quantize_per_channel(X, torch.ones(4), torch.zeros(4), 0, torch.qint8),
    "lazy": lambda: nn.UninitializedBuffer(),
    **{name: lambda name=name: small(name) for name in SMALL},
}


class Holding(nn.Module):
    """Has a buffer, and returns it together with a computed value."""

    def __init__(self, buffer):
        super().__init__()
        self.register_buffer("held", buffer)

    def forward(self, x):
        return x * 2, self.held


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_a_buffer_of_any_kind_stops_no_graph_and_no_other_patch(make):
    module = Holding(make())
    held = module.held
    pg = PatchableGraph(module, X)
    assert pg(X)[1] is held and module.held is held
    assert torch.equal(pg(X)[0], X * 2)
    with pg.patch({"mul": ZeroPatch()}):
        assert torch.equal(pg(X)[0], X * 0)
    with pg.patch({"output|sub_0": AddPatch(value=1.0)}):
        assert torch.equal(pg(X)[0], X * 2 + 1)


@pytest.mark.parametrize("kind", ["sparse_coo", "sparse_csr", "mkldnn"])
def test_what_cannot_be_patched_says_so_at_its_node(kind):
    pg = PatchableGraph(Holding(KINDS[kind]()), X)
    with (
        pytest.raises(PatchError, match=r"output\|sub_1.*libtorch cannot do this to a"),
        pg.patch({"output|sub_1": AddPatch(value=1.0)}),
    ):
        pg(X)
    assert torch.equal(pg(X)[0], X * 2)


class Parametrized(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.held = nn.Parameter(value, requires_grad=False)

    def forward(self, x):
        return x * 2, self.held


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind not in ("lazy", "nested", "jagged", "quantized by channel")]
)
@pytest.mark.parametrize("module", [Holding, Parametrized])
def test_a_function_gets_a_value_of_any_kind(module, kind):
    """Sparse parameters were once refused a class, and small dtypes a copy."""
    pg = PatchableGraph(module(KINDS[kind]()), X)
    seen = []

    def function(value):
        seen.append(value)
        return value

    with pg.patch({"output|sub_1": CustomPatch(custom_op=function)}, on_missing="raise"):
        assert torch.equal(pg(X)[0], X * 2)
    assert seen[0].dtype == pg._module.held.dtype and seen[0].layout == pg._module.held.layout


@pytest.mark.parametrize("kind", ["lazy", "quantized by channel"])
@pytest.mark.parametrize("patch", [RecordPatch(), CustomPatch(custom_op=lambda value: value)])
def test_what_cannot_be_copied_says_so_at_its_node(kind, patch):
    pg = PatchableGraph(Holding(KINDS[kind]()), X)
    with (
        pytest.raises(PatchError, match=r"output\|sub_1.*(cannot copy|cannot be kept|clone)"),
        pg.patch({"output|sub_1": patch}),
    ):
        pg(X)
    assert torch.equal(pg(X)[0], X * 2)


class Multiplying(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return torch.sparse.mm(self.weight, x) + 1


def test_values_beside_a_sparse_parameter_are_patched():
    x = torch.arange(16.0).view(4, 4)
    pg = PatchableGraph(Multiplying(torch.eye(4).to_sparse()), x)
    probe = ProbePatch()
    with torch.no_grad(), pg.patch({"weight": probe, "x": AddPatch(value=2.0)}):
        assert torch.equal(pg(x), x + 3)
    assert torch.equal(probe.activation.to_dense(), torch.eye(4))


@pytest.mark.parametrize("name", SMALL)
def test_a_probe_keeps_the_bits_of_small_dtypes(name):
    held = small(name)
    held.view(torch.uint8).copy_(torch.arange(held.view(torch.uint8).numel()).view_as(held.view(torch.uint8)))
    pg = PatchableGraph(Holding(held), X)
    probe = ProbePatch()
    with pg.patch({"output|sub_1": probe}):
        pg(X)
    kept = probe.activation
    assert kept.dtype == held.dtype and kept.data_ptr() != held.data_ptr()
    assert torch.equal(kept.view(torch.uint8), held.view(torch.uint8))


class Counting(nn.Module):
    """Writes into a sparse buffer, and replaces a nested one."""

    def __init__(self):
        super().__init__()
        self.register_buffer("sparse", torch.eye(4).to_sparse())
        self.register_buffer("nested", torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]))

    def forward(self, x):
        self.sparse.mul_(2)
        self.nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
        return x + 1


def test_making_a_graph_leaves_buffers_of_other_layouts_as_they_were():
    module = Counting()
    nested = module.nested
    PatchableGraph(module, X)
    assert torch.equal(module.sparse.to_dense(), torch.eye(4))
    assert module.nested is nested


class Initialized(nn.Module):
    """Its first run gives its parameters their shapes."""

    def __init__(self):
        super().__init__()
        self.linear = nn.LazyLinear(3)
        self.norm = nn.LazyBatchNorm1d()

    def forward(self, x):
        return self.norm(self.linear(x))


def test_a_module_that_is_not_initialized_yet_is_patched_like_any_other():
    pg = PatchableGraph(Initialized().eval(), X)
    with pg.patch({"linear.output": ZeroPatch()}):
        patched = pg(X)
    norm = pg._module.norm if hasattr(pg, "_module") else None
    assert norm is None or torch.allclose(patched, norm(torch.zeros(4, 3)))


class Nested(nn.Module):
    def __init__(self, layout):
        super().__init__()
        self.layout = layout

    def forward(self, x):
        y = x * 3
        return torch.nested.nested_tensor([y[0], y[1, :2]], layout=self.layout)


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=["strided", "jagged"])
def test_nested_outputs_come_through_and_what_they_are_made_of_is_patched(layout):
    pg = PatchableGraph(Nested(layout), X)
    with pg.patch({"mul": AddPatch(value=1.0)}):
        first, second = pg(X).unbind()
    assert torch.equal(first, torch.full((4,), 4.0)) and torch.equal(second, torch.full((2,), 4.0))
