"""The inside of attention: what is shown of it, that looking changes nothing, and what a patch inside does."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from libgraphpatch import (
    AddPatch,
    CustomPatch,
    ExtractionOptions,
    PatchableGraph,
    ProbePatch,
    ReplacePatch,
    ZeroPatch,
)

INSIDE = "scaled_dot_product_attention."
# The largest difference between the fused operation and the math path that docs/reference/attention.md states.
TOLERANCE = {torch.float64: 1e-14, torch.float32: 5e-6, torch.float16: 4e-3, torch.bfloat16: 4e-2}


class Attention(nn.Module):
    """One call of the operation, with these keyword arguments."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self.kwargs = kwargs

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, **self.kwargs)


def operands(*sizes: int, dtype: torch.dtype = torch.float32, heads: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    key = (*sizes[:-3], heads, *sizes[-2:]) if len(sizes) > 3 else sizes
    return torch.randn(sizes, dtype=dtype), torch.randn(key, dtype=dtype), torch.randn(key, dtype=dtype)


def by_math(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """The result and the probabilities of libtorch's own math path, which expects the mask as numbers."""
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=query.dtype).masked_fill(~mask, -math.inf)
    return torch.ops.aten._scaled_dot_product_attention_math(query, key, value, mask, **kwargs)


BOOL_MASK = torch.tensor([[True, False, True, True, False]]).expand(5, 5)
FLOAT_MASK = torch.linspace(-1, 1, 25).view(5, 5)
CASES: dict[str, tuple[tuple[int, ...], int, Tensor | None, dict[str, Any]]] = {
    "plain": ((2, 4, 5, 8), 4, None, {}),
    "three dimensions": ((4, 5, 8), 4, None, {}),
    "causal": ((2, 4, 5, 8), 4, None, {"is_causal": True}),
    "bool mask": ((2, 4, 5, 8), 4, BOOL_MASK, {}),
    "float mask": ((2, 4, 5, 8), 4, FLOAT_MASK, {}),
    "scale": ((2, 4, 5, 8), 4, None, {"scale": 0.7}),
    "negative scale": ((2, 4, 5, 8), 4, None, {"scale": -0.3}),
    "grouped": ((2, 4, 5, 8), 2, None, {"enable_gqa": True}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_looking_changes_nothing_and_values_are_those_of_the_math_path(case: str, dtype: torch.dtype) -> None:
    sizes, heads, mask, kwargs = CASES[case]
    query, key, value = operands(*sizes, dtype=dtype, heads=heads)
    if mask is not None and mask.is_floating_point():
        mask = mask.to(dtype)
    model = Attention(**kwargs)
    bare = model(query, key, value, mask)
    random = torch.get_rng_state()
    pg = PatchableGraph(model, ExtractionOptions(inside="attention"), query, key, value, mask)
    probes = {name: ProbePatch() for name in ("scores", "probabilities", "output")}
    masked = mask is not None or "is_causal" in kwargs
    if masked:
        probes |= {name: ProbePatch() for name in ("mask", "masked_scores")}
    with pg.patch({INSIDE + name: probe for name, probe in probes.items()}), pg.recording():
        seen = pg(query, key, value, mask)
    assert torch.equal(seen, bare) and torch.equal(torch.get_rng_state(), random)
    output, probabilities = by_math(query, key, value, mask, **kwargs)
    kept = {name: probe.activation for name, probe in probes.items()}
    assert kept["probabilities"] is not None and torch.equal(kept["probabilities"].to(dtype), probabilities)
    assert kept["output"] is not None and torch.equal(kept["output"], bare)
    assert (output - bare).abs().max() <= TOLERANCE[dtype]
    before = kept["masked_scores"] if masked else kept["scores"]
    assert before is not None and torch.equal(torch._safe_softmax(before, -1), kept["probabilities"])
    names = [name.rpartition(".")[2] for name in map(str, pg.graph.find("scaled_dot_product_attention.*"))]
    first, last = ["query", "key", "value", "scores"], ["probabilities", "output"]
    assert names == first + (["mask", "masked_scores"] if masked else []) + last


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_a_patch_inside_computes_what_follows_from_it(case: str, dtype: torch.dtype) -> None:
    sizes, heads, mask, kwargs = CASES[case]
    query, key, value = operands(*sizes, dtype=dtype, heads=heads)
    if mask is not None and mask.is_floating_point():
        mask = mask.to(dtype)
    model = Attention(**kwargs)
    pg = PatchableGraph(model, query, key, value, mask)
    head = (..., 1, slice(None), slice(None))
    with pg.patch({INSIDE + "probabilities": ZeroPatch(slice=head)}):
        seen = pg(query, key, value, mask)
    _, probabilities = by_math(query, key, value, mask, **kwargs)
    probabilities[head] = 0
    repeated = value.repeat_interleave(4 // heads, -3) if heads != 4 else value
    assert (seen - probabilities @ repeated).abs().max() <= TOLERANCE[dtype]
    assert seen[head].abs().max() == 0
    bare = model(query, key, value, mask)
    assert (seen[..., 2, :, :] - bare[..., 2, :, :]).abs().max() <= TOLERANCE[dtype]
    assert seen.dtype == dtype and seen.stride() == bare.stride()


def test_scores_mask_and_operands_can_be_patched() -> None:
    query, key, value = operands(2, 4, 5, 8)
    pg = PatchableGraph(Attention(is_causal=True), query, key, value)

    def patched(name: str, patch: Any) -> Tensor:
        with pg.patch({INSIDE + name: patch}):
            return pg(query, key, value)

    everywhere = F.scaled_dot_product_attention(query, key, value)
    assert torch.allclose(patched("mask", ZeroPatch()), everywhere, atol=5e-6)
    scores = query @ key.transpose(-2, -1) / math.sqrt(8)
    causal = torch.full((5, 5), -math.inf).triu(1)
    expected = torch.softmax(2 * scores + causal, -1) @ value
    doubled = patched("scores", CustomPatch(custom_op=lambda scores: scores * 2))
    assert torch.allclose(doubled, expected, atol=5e-6)
    expected = F.scaled_dot_product_attention(query, key + 1, value, is_causal=True)
    before = key.clone()
    assert torch.allclose(patched("key", AddPatch(value=1.0)), expected, atol=5e-6)
    assert torch.equal(key, before)
    uniform = patched("probabilities", ReplacePatch(value=0.2))
    assert torch.allclose(uniform, value.mean(-2, keepdim=True).expand_as(uniform), atol=5e-6)


def test_a_patch_that_changes_nothing_keeps_the_fused_result() -> None:
    query, key, value = operands(2, 4, 5, 8)
    pg = PatchableGraph(Attention(), query, key, value)
    for patch in (AddPatch(value=0.0), CustomPatch(custom_op=lambda seen: seen)):
        with pg.patch({INSIDE + "scores": patch}):
            assert torch.equal(pg(query, key, value), F.scaled_dot_product_attention(query, key, value))


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_the_patched_computation(case: str) -> None:
    sizes, heads, mask, kwargs = CASES[case]
    given = operands(*sizes, heads=heads)
    pg = PatchableGraph(Attention(**kwargs), *given, mask)
    factor = torch.rand(1, requires_grad=True)

    def gradients(call: Any) -> list[Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in given]
        call(*leaves).square().sum().backward()
        assert factor.grad is not None
        found = [*(leaf.grad for leaf in leaves if leaf.grad is not None), factor.grad]
        factor.grad = None
        return found

    def by_hand(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        probabilities = by_math(query, key, value, mask, **kwargs)[1]
        repeated = value.repeat_interleave(4 // heads, -3) if heads != 4 else value
        return (probabilities + factor) @ repeated

    with pg.patch({INSIDE + "probabilities": AddPatch(value=factor)}):
        seen = gradients(lambda *leaves: pg(*leaves, mask))
    for got, expected in zip(seen, gradients(by_hand), strict=True):
        assert torch.allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_looking_keeps_gradients_bit_for_bit() -> None:
    found = []
    for look in (False, True):
        torch.manual_seed(1)
        leaves = [tensor.requires_grad_() for tensor in operands(2, 4, 5, 8)]
        pg = PatchableGraph(Attention(is_causal=True), ExtractionOptions(inside="attention"), *leaves)
        with pg.patch({INSIDE + "probabilities": ProbePatch()} if look else {}):
            pg(*leaves).sum().backward()
        found.append([leaf.grad for leaf in leaves])
    for bare, seen in zip(*found, strict=True):
        assert bare is not None and seen is not None and torch.equal(bare, seen)


def test_the_gradient_of_the_probabilities_is_kept() -> None:
    leaves = [tensor.requires_grad_() for tensor in operands(2, 4, 5, 8)]
    pg = PatchableGraph(Attention(), *leaves)
    probe = ProbePatch(grad=True)
    with pg.patch({INSIDE + "probabilities": probe}):
        pg(*leaves).sum().backward()
    assert probe.grad is not None
    expected = torch.ones(2, 4, 5, 8) @ leaves[2].detach().transpose(-2, -1)
    assert torch.allclose(probe.grad, expected, atol=1e-5)


def test_the_operations_own_path_means_what_it_meant() -> None:
    query, key, value = operands(2, 4, 5, 8)
    zero = torch.zeros(2, 4, 5, 8)
    for options in ((), (ExtractionOptions(inside="attention"),)):
        pg = PatchableGraph(Attention(), *options, query, key, value)
        for path in ("scaled_dot_product_attention", "scaled_dot_product*", INSIDE + "output"):
            with pg.patch({path: ZeroPatch()}):
                assert torch.equal(pg(query, key, value), zero)
        with pg.patch({"scaled_dot_product_attention": AddPatch(value=1.0), INSIDE + "probabilities": ZeroPatch()}):
            assert torch.equal(pg(query, key, value), zero + 1)


def test_without_a_request_nothing_is_shown() -> None:
    query, key, value = operands(2, 4, 5, 8)
    pg = PatchableGraph(Attention(), query, key, value)
    assert "scaled_dot_product_attention: Tensor(2, 4, 5, 8)" in repr(pg.graph)
    with pytest.raises(KeyError):
        pg.patch({INSIDE + "softmax": ZeroPatch()})
    probe = ProbePatch()
    with pg.patch({INSIDE + "probabilities": probe}), pg.recording():
        pg(query, key, value)
    # The path has led there, so what was recorded shows it.
    assert "probabilities: Tensor(2, 4, 5, 5)" in repr(pg.graph)
    with pytest.warns(UserWarning, match="mask"):
        with pg.patch({"output": ZeroPatch(), INSIDE + "output": ProbePatch()}):
            pg(query, key, value)
        other = PatchableGraph(Attention(), query, key, value)
        with other.patch({INSIDE + "mask": ZeroPatch()}):
            other(query, key, value)


def test_each_call_has_its_own_scope() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            once = F.scaled_dot_product_attention(x, x, x)
            return F.scaled_dot_product_attention(once, x, x, is_causal=True)

    x = torch.randn(2, 4, 5, 8)
    pg = PatchableGraph(Twice(), ExtractionOptions(inside="attention"), x)
    first, second = ProbePatch(), ProbePatch()
    paths = {INSIDE + "probabilities": first, "scaled_dot_product_attention_1.probabilities": second}
    with pg.patch(paths):
        assert torch.equal(pg(x), Twice()(x))
    assert first.activation is not None and second.activation is not None
    assert first.activation[..., 0, 1].min() > 0 and second.activation[..., 0, 1].max() == 0
    with pg.patch({"scaled_dot_product_attention*.probabilities": ZeroPatch()}) as block:
        assert pg(x).abs().max() == 0
    assert [count.applied for counts in block.counts.values() for count in counts] == [1, 1]
    assert "probabilities = aten.softmax.int(scores)" in str(pg.graph.scaled_dot_product_attention._code)


@pytest.mark.parametrize("kind", ["dropout", "vmap", "nested", "mode"])
def test_what_cannot_be_seen_is_refused(kind: str) -> None:
    x = torch.randn(2, 4, 5, 8)
    model = Attention(dropout_p=0.5) if kind == "dropout" else Attention()
    pg = PatchableGraph(model, x, x, x)

    def call() -> Any:
        if kind == "vmap":
            return torch.vmap(pg)(*[x[None]] * 3)
        if kind == "nested":
            nested = torch.nested.nested_tensor([torch.randn(2, 3, 8), torch.randn(2, 3, 8)])
            return pg(nested, nested, nested)
        if kind == "mode":
            from torch.utils.flop_counter import FlopCounterMode

            with FlopCounterMode(display=False):
                return pg(x, x, x)
        return pg(x, x, x)

    with pg.patch({INSIDE + "probabilities": ZeroPatch()}):
        with pytest.raises(Exception, match="the inside of an attention cannot be computed"):
            call()


def test_random_state_stays_with_dropout() -> None:
    x = torch.randn(2, 4, 5, 8)
    model = Attention(dropout_p=0.5)
    pg = PatchableGraph(model, ExtractionOptions(inside="attention"), x, x, x)
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(pg(x, x, x) if results else model(x, x, x))
    assert torch.equal(*results) and "scaled_dot_product_attention: Tensor" in repr(pg.graph)


def test_under_autocast() -> None:
    query, key, value = operands(2, 4, 5, 8)
    pg = PatchableGraph(Attention(), query, key, value)
    head = (slice(None), 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        bare = pg(query, key, value)
        with pg.patch({INSIDE + "probabilities": (probe := ProbePatch())}):
            assert torch.equal(pg(query, key, value), bare) and bare.dtype == torch.bfloat16
        with pg.patch({INSIDE + "probabilities": ZeroPatch(slice=head)}):
            seen = pg(query, key, value)
    cast = [tensor.bfloat16() for tensor in (query, key, value)]
    assert probe.activation is not None
    assert torch.equal(probe.activation.bfloat16(), by_math(*cast, None)[1])
    assert seen.dtype == torch.bfloat16 and seen[head].abs().max() == 0
    assert (seen[:, 2] - bare[:, 2]).abs().max() <= TOLERANCE[torch.bfloat16]


def test_a_real_model() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"n_layer": 2, "n_head": 4, "n_embd": 32, "vocab_size": 50}
    model, eager = (
        transformers.GPT2Model(transformers.GPT2Config(**sizes, attn_implementation=way)).eval()
        for way in ("sdpa", "eager")
    )
    eager.load_state_dict(model.state_dict())
    tokens = torch.arange(7)[None]
    pg = PatchableGraph(model, input_ids=tokens)
    path = "h_0.attn.scaled_dot_product_attention.probabilities"
    with torch.no_grad():
        bare = model(input_ids=tokens).last_hidden_state
        with pg.patch({path: (probe := ProbePatch())}):
            assert torch.equal(pg(input_ids=tokens).last_hidden_state, bare)
        probabilities = eager(input_ids=tokens, output_attentions=True).attentions[0]
        assert probe.activation is not None and torch.allclose(probe.activation, probabilities, atol=1e-6)
        with pg.patch({path: ZeroPatch(slice=(slice(None), 2))}):
            seen = pg(input_ids=tokens).last_hidden_state
        other = PatchableGraph(eager, input_ids=tokens)
        with other.patch({"h_0.attn.softmax": ZeroPatch(slice=(slice(None), 2))}):
            expected = other(input_ids=tokens).last_hidden_state
    assert torch.allclose(seen, expected, atol=1e-5) and not torch.allclose(seen, bare, atol=1e-2)


def test_in_compiled_code() -> None:
    class Block(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(x, x, x) * 2

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = torch.compile(Block())

        def forward(self, x: Tensor) -> Tensor:
            return self.block(x)

    x, model = torch.randn(2, 4, 5, 8), Outer()
    pg = PatchableGraph(model, x)
    (path,) = map(str, pg.graph.find("**.scaled_dot_product_attention"))
    with torch.no_grad(), pg.patch({f"{path}.probabilities": ZeroPatch()}):
        for _ in range(30):  # it would be compiled with taps meanwhile
            assert pg(x).abs().max() == 0
