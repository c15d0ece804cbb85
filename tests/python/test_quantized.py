"""Weights in 8 and 4 bits: a patch acts on the float value that they stand for, or it is refused."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from libgraphpatch import AddPatch, CustomPatch, PatchableGraph, ProbePatch, ZeroPatch
from support import ROOT

X = torch.linspace(-1, 1, 192).reshape(3, 64)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))


def installed(name: str) -> Any:
    """A module of the packages that `make test-python` puts beside the environment."""
    folder = str(next(ROOT.glob("build/quantized-*"), ROOT))
    sys.path.append(folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)


def dynamic() -> nn.Module:
    quantized: nn.Module = torch.ao.quantization.quantize_dynamic(Net().eval(), {nn.Linear}, dtype=torch.qint8)
    return quantized


def eight_bits() -> nn.Module:
    bnb = installed("bitsandbytes")
    model = Net().eval()
    for name, plain in [*model.named_children()]:
        made = bnb.nn.Linear8bitLt(64, 64, has_fp16_weights=False)
        made.load_state_dict(plain.state_dict())
        setattr(model, name, made)
    return model.to("cpu")


def four_bits() -> nn.Module:
    bnb = installed("bitsandbytes")
    model = Net().eval()
    for name, plain in [*model.named_children()]:
        made = bnb.nn.Linear4bit(64, 64, compute_dtype=torch.float32, quant_type="nf4")
        made.load_state_dict(plain.state_dict())
        setattr(model, name, made)
    return model.to("cpu")


def torchao(config: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        quantization = installed("torchao.quantization")
        model = Net().eval()
        quantization.quantize_(model, getattr(quantization, config)())
        return model

    return make


MAKERS: dict[str, Callable[[], nn.Module]] = {
    "torch.ao dynamic": dynamic,
    "bitsandbytes 8 bits": eight_bits,
    "bitsandbytes 4 bits": four_bits,
    "torchao weights": torchao("Int8WeightOnlyConfig"),
    "torchao activations": torchao("Int8DynamicActivationInt8WeightConfig"),
}


@pytest.fixture(params=MAKERS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return MAKERS[request.param]()


def run(pg: PatchableGraph, patches: dict[str, Any]) -> Tensor:
    with torch.no_grad(), pg.patch(patches):
        output: Tensor = pg(X)
    return output


def test_a_probe_sees_the_float_value_and_changes_nothing(model: nn.Module) -> None:
    with torch.no_grad():
        before = model(X)
    pg = PatchableGraph(model, X)
    probe: ProbePatch[Tensor] = ProbePatch()
    assert torch.equal(run(pg, {"a.weight": probe}), before)
    value, plain = probe.activation, Net().a.weight
    assert value is not None and value.is_floating_point() and value.shape == plain.shape
    assert torch.allclose(value.float(), plain, atol=float(plain.abs().max()) / 5)


def test_patches_act_on_the_float_value(model: nn.Module) -> None:
    pg = PatchableGraph(model, X)
    probe: ProbePatch[Tensor] = ProbePatch()
    run(pg, {"b.weight": probe})
    assert probe.activation is not None
    weight = probe.activation.float()
    with torch.no_grad():
        hidden = torch.relu(model.a(X))
    bias = Net().b.bias
    for patch, changed in (
        (ZeroPatch(), torch.zeros_like(weight)),
        (ZeroPatch(slice=(slice(None), 0)), torch.cat([torch.zeros(64, 1), weight[:, 1:]], 1)),
        (AddPatch(value=0.5), (probe.activation + 0.5).float()),
        (CustomPatch(custom_op=lambda value: value * 2), weight * 2),
    ):
        expected = functional.linear(hidden, changed, bias)
        assert torch.allclose(run(pg, {"b.weight": patch}), expected, atol=2e-3, rtol=1e-3), patch
    # Patches act in the order given, also across blocks, and leave no change behind.
    with pg.patch({"b.weight": [AddPatch(value=1.0), ZeroPatch(slice=0)]}):
        changed = (probe.activation + 1).float()
        changed[0] = 0
        with torch.no_grad():
            assert torch.allclose(pg(X), functional.linear(hidden, changed, bias), atol=2e-2, rtol=1e-2)
        doubled = run(pg, {"b.weight": CustomPatch(custom_op=lambda value: value * 2)})
        assert torch.allclose(doubled, functional.linear(hidden, changed * 2, bias), atol=4e-2, rtol=1e-2)
        twice = CustomPatch(custom_op=lambda value: value * 2)
        fourfold = run(pg, {"b.weight": [twice, twice]})
        assert torch.allclose(fourfold, functional.linear(hidden, changed * 4, bias), atol=8e-2, rtol=1e-2)
    with torch.no_grad():
        assert torch.equal(pg(X), model(X))


def test_a_patch_that_cannot_act_is_refused(model: nn.Module) -> None:
    pg = PatchableGraph(model, X)
    with pytest.raises(ValueError, match="a.weight: this weight of a .* is quantized, and has no gradient"):
        run(pg, {"a.weight": ZeroPatch(on="grad")})
    alone = PatchableGraph(copy.deepcopy(model.a), X)
    with pytest.raises(
        ValueError, match="weight: this weight .* cannot be patched there; patch what the module returns"
    ):
        run(alone, {"weight": ZeroPatch()})


def test_a_cache_leaves_the_run_as_it_is(model: nn.Module) -> None:
    pg = PatchableGraph(model, X)
    with torch.no_grad():
        before = model(X)
    assert torch.equal(pg.cache(X)["output"], before)
    cache = pg.cache(X, "b.weight" if "weight" in pg.graph.b else "b.output")
    assert all(value.is_floating_point() for value in cache.values())


class Packed(nn.Module):
    """A layer of an unknown library, with two numbers in each byte."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randint(0, 255, (64, 32), dtype=torch.uint8), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.stack([self.weight & 15, self.weight >> 4], -1).reshape(64, 64)
        return functional.linear(x, weight.float() - 8)


def test_weights_of_unknown_kinds_are_refused() -> None:
    pg = PatchableGraph(nn.Sequential(Packed(), nn.Linear(64, 4)), X)
    with pytest.raises(ValueError, match="sub_0.weight: this weight of a Packed is quantized"):
        run(pg, {"sub_0.weight": ZeroPatch()})
    assert pg.cache(X)["sub_0.weight"].dtype == torch.uint8  # reading the weight is allowed
    with pytest.raises(ValueError, match="sub_0.weight: this weight"):
        pg.sweep("sub_*.weight", X, metric=lambda output: output.sum())
    assert not run(pg, {"sub_1.weight": ZeroPatch(), "sub_1.bias": ZeroPatch()}).any()


def test_quantized_activations() -> None:
    ao = torch.ao.quantization
    model = nn.Sequential(ao.QuantStub(), nn.Linear(64, 64), ao.DeQuantStub()).eval()
    model.qconfig = ao.get_default_qconfig(torch.backends.quantized.engine)
    ao.prepare(model, inplace=True)(X)
    ao.convert(model, inplace=True)
    pg = PatchableGraph(model, X)
    probe: ProbePatch[Tensor] = ProbePatch()
    run(pg, {"sub_1.weight": probe})
    assert probe.activation is not None and torch.equal(probe.activation, model[1].weight().dequantize())
    with torch.no_grad():
        given, bias = model[0](X).dequantize(), model[1].bias()
        half = functional.linear(given, probe.activation / 2, bias)
        step = float(model[1].scale)
        halved = run(pg, {"sub_1.weight": CustomPatch(custom_op=lambda value: value / 2)})
        assert torch.allclose(halved, half, atol=step)
