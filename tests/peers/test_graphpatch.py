"""The tests of the package graphpatch 0.2.3, written again under their old names. Of the code
that uses the package, only the import is changed.
`README.md` beside this file lists all of them."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Graph
from transformers import GPT2Config, GPT2LMHeadModel

import libgraphpatch as graphpatch
from libgraphpatch import (
    AddPatch,
    CompiledGraphModule,
    CustomPatch,
    ExtractionOptions,
    OpaqueGraphModule,
    PatchableGraph,
    ProbePatch,
    RecordPatch,
    ReplacePatch,
    ZeroPatch,
)


class Minimal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Buffered(Minimal):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("buffer", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.buffer


class Attribute(Minimal):
    def __init__(self, small: float = 1e-6) -> None:
        super().__init__()
        self.small = small

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x + self.small)


class Twice(Minimal):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.linear(x), self.linear(x + 1)


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(Inner() for _ in range(2))
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Any:
        x = x + 1
        return (self.linear(x),), [self.parts[0](x), self.parts[1](x)], {"nested": [(x * 2,)]}


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Any:
        return [((self.linear(x),), x)], x


class Contained(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.sequential = nn.Sequential(nn.Linear(3, 3), self.linear)
        self.module_list = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
        self.module_dict = nn.ModuleDict({"bar": nn.ModuleDict({"baz": nn.ModuleList([nn.Linear(3, 3)])})})

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x) + self.module_dict["bar"]["baz"][0](x) * self.linear(x)
        y = y + self.module_list[0](x) + self.module_list[1](x)
        return self.sequential(y) + self.linear(y) + self.module_list[0](y)


class VarArguments(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor, *more: Tensor, scale: int = 3, **named: Tensor) -> Tensor:
        y = self.linear(x)
        for other in more:
            y = y + other
        y = self.linear(y + scale)
        for other in named.values():
            y = y + other
        return y


class Unused(Minimal):
    def __init__(self) -> None:
        super().__init__()
        self.never = nn.Linear(1, 1)


class Protected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._code = nn.Linear(2, 2)

    def forward(self, _shape: Tensor, sub_shape: int = 7) -> Tensor:
        return self._code(_shape + sub_shape)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.ln(x)


X = torch.ones(2, 3).t()
SQUARE = torch.ones(3, 3)


def made(module: nn.Module, *inputs: Any, **options: Any) -> PatchableGraph:
    return PatchableGraph(module, ExtractionOptions(**options), *inputs)


@pytest.fixture
def minimal() -> PatchableGraph:
    return made(Minimal(), X)


# --- test_patch.py ---


def test_patch_module_input(minimal: PatchableGraph) -> None:
    with minimal.patch({"linear.input": ZeroPatch()}):
        patched = minimal(X)
    assert patched.equal(minimal._graph_module.linear(torch.zeros_like(X)))


def test_patch_module_output(minimal: PatchableGraph) -> None:
    with minimal.patch({"output": ReplacePatch(value=3, slice=(slice(None), slice(None)))}):
        assert minimal(X).eq(3).all()


def test_patch_probe(minimal: PatchableGraph) -> None:
    with minimal.patch({"linear.weight": [weight := ProbePatch()], "output": [output := ProbePatch()]}):
        patched = minimal(X)
    assert output.activation.equal(patched) and weight.activation.equal(minimal._graph_module.linear.weight)


def test_patch_duplicate_modules() -> None:
    pg = made(Contained(), SQUARE)
    with pg.patch({"linear_0.weight": [weight := ProbePatch()], "output": [output := ProbePatch()]}):
        patched = pg(SQUARE)
    assert output.activation.equal(patched) and weight.activation.equal(pg._graph_module.linear.weight)


def test_update_patch_context(minimal: PatchableGraph) -> None:
    outputs = [minimal(X)]
    with minimal.patch({"output": [before := RecordPatch()]}):
        outputs.append(minimal(X))
        with minimal.patch({"output": ZeroPatch()}):
            outputs.append(minimal(X))
            with minimal.patch({"output": [after := RecordPatch()]}):
                outputs.append(minimal(X))
            outputs.append(minimal(X))
        outputs.append(minimal(X))
    assert [output.any().item() for output in outputs] == [True, True, False, False, False, True]
    assert outputs[0].equal(outputs[1]) and outputs[0].equal(outputs[5])
    assert len(before.activations) == 5 and all(value.equal(outputs[0]) for value in before.activations)
    assert len(after.activations) == 1 and after.activations[0].equal(outputs[3])


def test_patch_with_slice(minimal: PatchableGraph) -> None:
    weights = [AddPatch(slice=[1, ...], value=torch.ones((2,))), weight := ProbePatch()]
    with minimal.patch({"linear.weight": weights}):
        whole = minimal(X)
        with minimal.patch({"output": [ZeroPatch(slice=[(0, 2), slice(1, 3)])]}):
            part = minimal(X)
    expected = whole.clone()
    expected[[0, 2], 1:3] = 0
    assert part.equal(expected)
    expected = minimal._graph_module.linear.weight.detach().clone()
    expected[1] += 1
    assert weight.activation.equal(expected)


def test_custom_patch(minimal: PatchableGraph) -> None:
    def add_one(tensor: Tensor) -> Tensor:
        tensor += 1
        return tensor

    original = minimal._graph_module.linear.weight.detach().clone()
    with minimal.patch({"linear.weight": [CustomPatch(custom_op=add_one), probe := ProbePatch()]}):
        minimal(X)
    assert probe.activation.equal(original + 1) and minimal._graph_module.linear.weight.equal(original)


def test_patch_output_tuple() -> None:
    pg = made(Twice(), X)
    patches = {
        "linear_0.output": [AddPatch(value=torch.ones((1,)))],
        "linear_1.output": [ZeroPatch()],
        "output|sub_0": [first := ProbePatch()],
        "output|sub_1": [second := ProbePatch()],
    }
    with pg.patch(patches):
        patched = pg(X)
    assert isinstance(patched, tuple) and len(patched) == 2
    assert not patched[1].any() and second.activation.equal(patched[1])
    assert patched[0].equal(pg(X)[0] + 1) and first.activation.equal(patched[0])


def test_patch_with_node_paths() -> None:
    pg = made(Twice(), X)
    with pg.patch({"output|sub_0": [AddPatch(value=torch.ones((1,)))], pg.graph.output.sub_1: [ZeroPatch()]}):
        patched = pg(X)
    assert patched[0].equal(pg(X)[0] + 1) and not patched[1].any()


def test_patch_with_node_path_exceptions() -> None:
    pg = made(Twice(), X)
    refused: list[tuple[type[Exception], Any]] = [
        (ValueError, {"foo"}),
        (KeyError, {"foo": [ZeroPatch()]}),
        (ValueError, {"output|sub_0": [3]}),
        (KeyError, {"output|sub_0|sub_0": [ZeroPatch()]}),
        (KeyError, {pg.graph.output: [ZeroPatch()]}),
    ]
    ran: list[int] = []
    with pg.module.register_forward_hook(lambda *_: ran.append(1)):
        for kind, patches in refused:
            with pytest.raises(kind), pg.patch(patches):
                pg(X)
    assert not ran


def test_patch_deeply_nested_output_model() -> None:
    pg = made(Deep(), X[:2])
    leaf = pg.graph.parts_1.output.sub_0.sub_0.sub_0.sub_0
    with pg.patch({leaf: [before := ProbePatch(), ZeroPatch(), after := ProbePatch()]}):
        patched = pg(X[:2])
    assert before.activation.all() and not after.activation.any() and not patched[1][1][0][0][0][0].any()


def test_patch_container_module() -> None:
    pg = made(Contained(), SQUARE)
    patches = {
        pg.graph.module_dict_bar_baz_0.weight: ZeroPatch(),
        pg.graph.sequential.output: [one := ProbePatch()],
        pg.graph.linear_2.output: [two := ProbePatch()],
        pg.graph.module_list_2.output: [three := ProbePatch(), AddPatch(value=1)],
    }
    with pg.patch(patches):
        output = pg(SQUARE)
    assert output.allclose(one.activation + two.activation + three.activation + 1)


def test_patch_varargs_module() -> None:
    more, named = (SQUARE.clone(), SQUARE.clone()), {"a": SQUARE.clone(), "b": SQUARE.clone()}
    pg = PatchableGraph(VarArguments(), SQUARE, *more, **named)
    with pg.patch({pg.graph.linear_1.input: (plain := ProbePatch())}):
        pg(SQUARE, *more, **named)
    patches = {
        pg.graph.more.sub_0: AddPatch(value=1),
        pg.graph.named.a: AddPatch(value=2),
        pg.graph.linear_1.input: (patched := ProbePatch()),
    }
    with pg.patch(patches):
        output = pg(SQUARE, *more, **named)
    assert patched.activation.allclose(plain.activation + 1)
    assert output.allclose(pg._graph_module.linear(patched.activation) + 2 + sum(named.values()))


def test_patch_buffer_module() -> None:
    pg = made(Buffered(), X)
    with pg.patch({"buffer": ZeroPatch()}):
        patched = pg(X)
    assert pg(X).equal(patched + 1)


def test_patch_pretrained_module() -> None:
    config = GPT2Config(vocab_size=50, n_positions=16, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=49)
    pg = PatchableGraph(GPT2LMHeadModel(config).eval(), ids := torch.tensor([[1, 2, 3]]))
    with pg.patch({"lm_head.weight": ZeroPatch(), "output|logits": [probe := ProbePatch()]}):
        assert not pg(ids).logits.any() and not probe.activation.any()
    assert pg.generate(ids, max_length=8, do_sample=False).shape[-1] == 8
    wanted = torch.zeros(1, 50)
    wanted[0, 42] = 1
    with pg.patch({"output|logits": ReplacePatch(value=wanted)}):
        generated = pg.generate(ids, max_length=8, do_sample=False)
    assert generated[0, 3:].eq(42).all()


# --- test_node_path.py, test_meta.py ---


def test_wrap_node_path() -> None:
    graph = made(Deep(), X[:2]).graph
    for path in ("", "linear", "linear.weight", "parts_0.output"):
        assert graph._dig(path)._path == path
    assert graph._dig("output.sub_0.sub_0")._path == "output|sub_0.sub_0" == str(graph.output.sub_0.sub_0)
    assert graph.parts_0.linear == graph._dig("parts_0.linear")


def test_node_path_autocomplete() -> None:
    graph = made(Deep(), X[:2]).graph
    assert {*dir(graph)} == {"x", "add", "linear", "parts_0", "parts_1", "mul", "output", "_code", "_shape"}
    assert {*dir(graph.output)} == {"sub_0", "sub_1", "sub_2", "_code", "_shape"}
    assert {*dir(graph.output.sub_2)} == {"nested", "_code", "_shape"} and {*dir(graph.add)} == {"_code", "_shape"}


def test_node_path_shape() -> None:
    graph, size = made(Deep(), X[:2]).graph, torch.Size((2, 2))
    assert graph._shape.add == graph.add._shape == graph.output.sub_0.sub_0._shape == size
    assert graph.output.sub_0._shape.sub_0 == graph.output._shape.sub_0.sub_0 == size
    assert graph._shape.output.sub_0.sub_0 == graph._shape.output.sub_2.nested.sub_0.sub_0 == size


def test_node_path_code() -> None:
    graph = made(Deep(), X[:2]).graph
    assert "return" in graph._code and "self.linear(add)" in graph._code
    assert "x = x + 1" in graph.add._code


def test_protected_names() -> None:
    pg = made(Protected(), X[:2].contiguous())
    assert "_code" not in pg.graph and "_shape" not in pg.graph
    assert {"sub_code", "sub_shape"} <= {*pg.graph.keys()}
    with pg.patch({"sub_shape": ZeroPatch(), "sub_code.output": (probe := ProbePatch())}):
        pg(_shape=X[:2].contiguous())
    assert probe.activation.equal(pg.module._code(torch.full((2, 2), 7.0)))


# --- test_serialization.py ---


def roundtrip(pg: PatchableGraph) -> PatchableGraph:
    buffer = io.BytesIO()
    pg.save(buffer)
    buffer.seek(0)
    loaded: PatchableGraph = torch.load(buffer, weights_only=False)
    return loaded


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (tuple, list)):
        return type(one) is type(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def test_torch_save_raises(minimal: PatchableGraph) -> None:
    with pytest.raises(ValueError):
        torch.save(minimal, io.BytesIO())


MODULES: dict[str, tuple[nn.Module, Tensor, str]] = {
    "minimal": (Minimal(), X, "output"),
    "buffer": (Buffered(), X, "output"),
    "attribute": (Attribute(), X, "output"),
    "layer_norm": (Normed(), X, "output"),
    "unused_submodule": (Unused(), X, "output"),
    "tuple_output": (Twice(), X, "output|sub_1"),
    "deeply_nested_output": (Deep(), X[:2], "output|sub_0.sub_0"),
    "container": (Contained(), SQUARE, "output"),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("way", [roundtrip, copy.deepcopy])
def test_serialization(name: str, way: Any) -> None:
    module, inputs, path = MODULES[name]
    pg = made(module, inputs)
    loaded = way(pg)
    assert type(loaded) is PatchableGraph and loaded.module is not pg.module
    assert [path for path, _ in loaded.named_modules()] == [path for path, _ in pg.named_modules()]
    assert repr(loaded.graph) == repr(pg.graph) and same(pg(inputs), loaded(inputs))
    with (
        pg.patch({path: [ZeroPatch(), one := ProbePatch()]}),
        loaded.patch({path: [ZeroPatch(), other := ProbePatch()]}),
    ):
        assert same(pg(inputs), loaded(inputs))
    assert not one.activation.any() and one.activation.equal(other.activation)
    for each in (pg, loaded):
        each.zero_grad()
        with each.patch({path: (probe := ProbePatch(grad=True))}):
            each(inputs)
        probe.activation.sum().backward()
    assert all(
        same(a.grad, b.grad) for a, b in zip(pg.parameters(), loaded.parameters(), strict=True) if a.grad is not None
    )


def test_pretrained_module_serialization() -> None:
    config = GPT2Config(vocab_size=50, n_positions=16, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=49)
    pg = PatchableGraph(GPT2LMHeadModel(config).eval(), ids := torch.tensor([[1, 2, 3]]))
    loaded = roundtrip(pg)
    for patches in ({}, {"output|logits": ZeroPatch()}):
        with pg.patch(patches), loaded.patch(patches):
            one, other = (each.generate(ids, max_length=8, do_sample=False) for each in (pg, loaded))
        assert one.equal(other)


# --- test_extraction.py ---


@pytest.mark.parametrize("name", MODULES)
def test_extract(name: str) -> None:
    """The tests of extraction check that the graph's module computes the same values and gradients as the module."""
    module, inputs, _ = MODULES[name]
    pg = made(module, inputs, error_on_compilation_failure=True, allow_unused_submodules=True)
    assert same(pg(inputs), module(inputs)) and isinstance(pg._graph_module, CompiledGraphModule)
    assert not isinstance(pg._graph_module, OpaqueGraphModule)


def test_unused_submodule_module() -> None:
    pg = made(Unused(), X, error_on_compilation_failure=True, allow_unused_submodules=True)
    assert not any("never" in str(node) for node in pg.graph.find())
    for strict in ({"error_on_compilation_failure": True}, {"allow_unused_submodules": False}):
        with pytest.raises(ValueError, match="not called in the example run: never"):
            made(Unused(), X, **strict)


def test_extract_with_opaque_modules() -> None:
    module = Contained()
    graphpatch.options._warned.clear()
    with pytest.warns(graphpatch.OptionWarning, match="classes_to_skip_compiling"):
        pg = made(module, SQUARE, classes_to_skip_compiling={nn.Linear})
    assert pg(SQUARE).equal(module(SQUARE)) and "linear.linear" in pg.graph
    with pytest.warns(graphpatch.OptionWarning, match="skip_compilation"):
        assert made(module, SQUARE, skip_compilation=True)(SQUARE).equal(module(SQUARE))


def test_extract_varargs_module() -> None:
    module, named = VarArguments(), {"hmm": SQUARE, "aha": SQUARE * 2}
    pg = PatchableGraph(module, SQUARE, SQUARE, SQUARE, **named)
    assert pg(SQUARE, SQUARE, SQUARE, **named).equal(module(SQUARE, SQUARE, SQUARE, **named))


def identity(module: nn.Module) -> Graph:
    graph = Graph()
    given = graph.placeholder("input")
    graph.output(graph.call_function(torch.neg, (given,)))
    return graph


def test_custom_extraction_function() -> None:
    module, seen = Minimal(), []
    pg = made(
        module,
        X,
        custom_extraction_functions={nn.Linear: identity},
        postprocessing_function=lambda made, original: seen.append((made, original)),
    )
    assert pg(X).equal(-X) and "linear.neg" in pg.graph and module(X).shape == (3, 3)
    assert seen[0][0] is pg._graph_module.linear and seen[0][1] is module.linear
    with pg.patch({"linear.neg": ZeroPatch()}):
        assert not pg(X).any()


def test_custom_extraction_fallback() -> None:
    def fail(module: nn.Module) -> Graph:
        raise ZeroDivisionError("simulated failure")

    module, functions = Minimal(), {nn.Linear: fail}
    assert made(module, X, custom_extraction_functions=functions)(X).equal(module(X))
    with pytest.raises(ZeroDivisionError, match="simulated failure"):
        made(module, X, custom_extraction_functions=functions, error_on_compilation_failure=True)
    with pytest.warns(graphpatch.OptionWarning, match="simulated failure"):
        made(module, X, custom_extraction_functions=functions, warn_on_compilation_failure=True)


def test_a_misspelt_option_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        ExtractionOptions(skip_compilations=True)


# --- test_rome.py ---


def test_rome() -> None:
    """A causal trace: the embeddings are corrupted, and one hidden state after the other is restored."""
    config = GPT2Config(vocab_size=50, n_positions=16, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=49)
    pg = PatchableGraph(GPT2LMHeadModel(config).eval(), ids := torch.tensor([[1, 2, 3, 4]]))
    noise = torch.randn(8)
    corrupted = {"transformer.wte.output": AddPatch(value=noise, slice=(slice(None), slice(0, 2)))}
    with torch.no_grad():
        with pg.patch({f"transformer.h_{layer}.output|sub_0": (ProbePatch()) for layer in range(2)}):
            clean = pg(ids).logits
        for layer in range(2):
            path = f"transformer.h_{layer}.output|sub_0"
            with pg.patch({path: (probe := ProbePatch())}):
                pg(ids)
            with pg.patch({**corrupted, path: ReplacePatch(value=probe.activation)}):
                restored = pg(ids).logits
            assert restored.allclose(clean, atol=1e-6)
            position = (slice(None), 0)
            with pg.patch({**corrupted, path: ReplacePatch(value=probe.activation[position], slice=position)}):
                part = pg(ids).logits
            with pg.patch(corrupted):
                broken = pg(ids).logits
            assert part[:, 0].allclose(clean[:, 0], atol=1e-6) and not part[:, 1].allclose(clean[:, 1], atol=1e-6)
            assert not broken[:, 0].allclose(clean[:, 0], atol=1e-6)


# --- the page ---

PAGE = Path(__file__).with_name("README.md")


def test_the_page_names_what_is_tested_here_and_why_the_rest_is_not() -> None:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.read_text().splitlines()]
    rows = [row for row in rows if row[0].startswith("`test_")]
    assert len(rows) > 60
    for name, _, result in rows:
        tested = result.removeprefix("passes: ").strip("`") if result.startswith("passes: ") else name.strip("`")
        assert (tested in globals()) if result.startswith("passes") else len(result.split()) > 4, name
