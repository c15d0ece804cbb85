"""transformers' GPT-2 and Llama with eager and sdpa attention: every tensor of the graph can be patched, with the
result of hooks, or of the same model written by hand and changed at that line."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import cache_utils

from by_hand import Edit, Weights
from libgraphpatch import AddPatch, CustomPatch, Patch, PatchableGraph, ProbePatch, RecordPatch
from transformers_models import (
    Case,
    Change,
    case,
    changes,
    hooked,
    in_out,
    is_operation,
    plain,
    same,
    split,
    tensor_leaves,
    tokens,
)

CASES = [(name, attention) for name in ("gpt2", "llama") for attention in ("eager", "sdpa")]


@pytest.fixture(params=CASES, ids=["-".join(names) for names in CASES])
def model(request: pytest.FixtureRequest) -> Case:
    return case(*request.param)


def report(failures: list[str]) -> None:
    assert not failures, f"{len(failures)} failures:\n" + "\n".join(failures)


def uninitialized(path: str) -> bool:
    """Whether the value is memory of `torch.tensor(...)` into which the numbers are not written yet."""
    return split(path)[1].startswith("empty")


# --- every node -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_every_tensor_of_the_graph_is_a_line_of_the_model_by_hand(model: Case) -> None:
    assert same(model.by_hand(), model.model(tokens()).logits)
    assert sorted(model.paths) == sorted(model.bare)
    probes = {path: ProbePatch() for path in model.paths}
    with model.pg.patch(probes):
        assert same(model.pg(tokens()).logits, model.by_hand())
    report(
        [
            path
            for path, probe in probes.items()
            if not uninitialized(path) and not same(plain(probe.activation), model.bare[path])
        ]
    )


def indifferent(case: Case, path: str) -> bool:
    """Whether no patch at the path can change the logits, as the model's source shows."""
    scope, name, dig = split(path)
    inside = scope.count(".") > 0
    return (
        case.bare[path].numel() == 0  # the keys and values that an empty cache holds
        or uninitialized(path)
        # Used only with static caches and other kinds of attention.
        or (name == "cache_position" or (name in ("position_ids", "kwargs") and not scope.endswith("rotary_emb")))
        or (scope.endswith("attn") and (name, dig) == ("output", ["sub_1"]))  # the weights of attention
        or name in ("arange_2", "arange_3")  # indices of batch and head, which the causal mask does not use
        or path == "model.rotary_emb.x"  # only its dtype is used
        # The mask adds the smallest number to these values, so that changes of them are lost in rounding.
        or (inside and case.name == "gpt2" and name == "full_1")
    )


@torch.no_grad()
def test_every_tensor_takes_zero_add_and_replace(model: Case) -> None:
    """Whole and by a slice: the patch sees the model's value, what follows sees the patched one, and the logits are
    those of the model by hand. What PyTorch refuses for a value of that shape is refused, naming the path."""
    bare = model.model(tokens()).logits
    failures, idle = [], []
    for path in model.paths:
        kept = model.bare[path]
        shape = model.pg.graph[path]._shape
        changed = False
        for change in changes(kept.dtype):
            before, after = ProbePatch(), ProbePatch()
            try:
                change(torch.zeros(shape, dtype=kept.dtype))
            except IndexError:
                with model.pg.patch({path: change.patch()}), pytest.raises(RuntimeError) as refused:
                    model.pg(tokens())
                if f"cannot be applied at {path}: " not in str(refused.value):
                    failures.append(f"{path}: {change}: {refused.value}")
                continue
            try:
                with model.pg.patch({path: [before, change.patch(), after]}):
                    logits = model.pg(tokens()).logits
            except Exception as error:
                failures.append(f"{path}: {change}: {error}")
                continue
            expected = model.by_hand({path: change})
            changed |= not same(expected, bare)
            found = plain(before.activation)
            if not uninitialized(path) and not same(found, kept):
                failures.append(f"{path}: {change}: the probe before it sees {found}, not {kept}")
            if not same(plain(after.activation), change(found)):
                failures.append(f"{path}: {change}: the probe after it sees {after.activation}")
            if not same(logits, expected):
                failures.append(f"{path}: {change}: other logits than by hand")
        if not changed:
            idle.append(path)
    report(failures)
    assert sorted(idle) == sorted(path for path in model.paths if indifferent(model, path))
    # Many nodes inside attention, MLP, norms, rotary embedding and residual sums did change the logits.
    assert len([path for path in model.paths if is_operation(path) and path not in idle]) >= 80
    assert same(model.model(tokens()).logits, bare)
    assert same(model.pg(tokens()).logits, bare)


@torch.no_grad()
def test_a_patched_view_leaves_what_it_is_a_view_of(model: Case) -> None:
    """Each value that shares memory with an earlier one is patched, while the earlier ones are held as the model has
    them. Only what the model itself writes into (`add_`, `detach_`) may change under it."""
    paths = [path for path in model.paths if split(path)[1] != "le"]  # inside vmap, it has no memory of its own
    bare, shared = held_values(model, paths, None), 0
    groups: dict[int, list[str]] = {}
    failures = []
    for path in bare:  # in the order in which the model computes the values
        value = bare[path]
        if not value.numel():
            continue
        earlier = groups.setdefault(value.untyped_storage().data_ptr(), [])
        operands = [other for other in earlier if not (split(path)[1].endswith(("add_", "detach_")))]
        earlier.append(path)
        if not operands:
            continue
        shared += 1
        held = held_values(model, [*operands, path], path)
        failures += [f"{path}: changed {other}" for other in operands if not same(held[other], bare[other])]
        if same(held[path], bare[path]):
            failures.append(f"{path}: not patched")
    report(failures)
    assert shared > len(paths) / 4


def held_values(case: Case, paths: list[str], patched: str | None) -> dict[str, Tensor]:
    """The model's own tensors, as they are after a run in which one of them was patched."""
    held: dict[str, Tensor] = {}

    def holder(path: str) -> CustomPatch[Tensor]:
        return CustomPatch(custom_op=lambda value: held.setdefault(path, value), requires_clone=False)

    patches = {path: [holder(path)] for path in paths if path != patched}
    if patched is not None:
        dtype = case.bare[patched].dtype
        patches[patched] = [
            AddPatch(value=changes(dtype)[1].value)
            if dtype is not torch.bool
            else CustomPatch(custom_op=torch.logical_not),
            holder(patched),
        ]
    with case.pg.patch(patches):
        case.pg(tokens())
    return held


@torch.no_grad()
def test_a_run_changes_neither_weights_nor_the_callers_tensors(model: Case) -> None:
    weights = {name: (tensor, tensor.clone()) for name, tensor in Weights(model.model).tensors.items()}
    given = tokens()
    with model.pg.patch({path: changes(model.bare[path].dtype)[0].patch() for path in model.paths}):
        model.pg(given)
    assert torch.equal(given, tokens())
    assert Weights(model.model).tensors.keys() == weights.keys()
    report(
        [
            name
            for name, (tensor, copy) in weights.items()
            if Weights(model.model).tensors[name] is not tensor or not same(tensor, copy)
        ]
    )


@torch.no_grad()
def test_several_patches_at_once_with_tensors_for_values(model: Case) -> None:
    """Six nodes at a time, two patches at each, values that broadcast, index tensors and steps for slices."""
    draw = torch.Generator().manual_seed(3)
    paths = [
        path
        for path in model.paths
        if is_operation(path)
        and model.bare[path].is_floating_point()
        and model.bare[path].dim() >= 3
        and not uninitialized(path)
    ]
    failures = []
    for attempt in range(40):
        chosen = [paths[i] for i in torch.randperm(len(paths), generator=draw)[:6]]
        edits = {}
        for path in chosen:
            rows, width = model.bare[path].shape[-2:]
            edits[path] = [
                Change("add", None, torch.randn(width, generator=draw)),
                Change(
                    "replace",
                    (..., slice(None, None, 2), [0, -1] if width > 1 else [0]),
                    torch.randn((rows + 1) // 2, 1, generator=draw),
                ),
            ]
        with model.pg.patch({path: [change.patch() for change in both] for path, both in edits.items()}):
            logits = model.pg(tokens()).logits
        by_hand = {path: lambda value, both=both: both[1](both[0](value)) for path, both in edits.items()}
        if not same(logits, model.by_hand(by_hand)):
            failures.append(f"{attempt}: {', '.join(chosen)}")
    report(failures)


# --- hooks ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_inputs_and_outputs_of_modules_are_as_under_hooks(model: Case) -> None:
    failures = []
    paths = in_out(model.paths)
    for path in paths:
        every = changes(model.bare[path].dtype)
        for change in (every[3], every[1], every[5]) if model.bare[path].numel() else every[:3]:
            with model.pg.patch({path: change.patch()}):
                logits = model.pg(tokens()).logits
            expected = hooked(model.model, {path: change}, lambda: model.model(tokens()).logits)
            if not same(logits, expected):
                failures.append(f"{path}: {change}")
    report(failures)
    called: set[int] = set()
    handles = [
        module.register_forward_hook(lambda module, _args, _output: called.add(id(module)))
        for module in model.model.modules()
    ]
    model.model(tokens())
    for handle in handles:
        handle.remove()
    assert len({split(path)[0] for path in paths}) == len(called)


@torch.no_grad()
def test_hooks_of_the_users_see_patched_values(model: Case) -> None:
    """Hooks of the user's still run: they see the patched value, and the caller gets their result."""
    mlp = next(path for path in model.paths if path.endswith("_1.mlp.output"))
    change, by_user = Change("add", (..., 0), 2.0), Change("replace", (0, 1), 0.5)
    seen: list[Tensor] = []
    with model.pg.patch({mlp: change.patch()}):
        logits = hooked(
            model.model, {mlp: lambda value: seen.append(value) or by_user(value)}, lambda: model.pg(tokens()).logits
        )
    expected = model.by_hand({mlp: lambda value: by_user(change(value))})
    assert len(seen) == 1 and same(seen[0], change(model.bare[mlp]))
    assert same(logits, expected)


# --- gradients --------------------------------------------------------------------------------------------------------


def loss_of(logits: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits[0, :-1], tokens()[0, 1:])


def gradients(case: Case, loss: Tensor, value: Tensor) -> dict[str, Tensor]:
    named = {**dict(case.model.named_parameters()), "the patch's value": value}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(tensor) if gradient is None else gradient
        for (name, tensor), gradient in zip(named.items(), found)
    }


def below_autograd(path: str) -> bool:
    """Whether the value is inside `torch.full` or `torch.tensor`, which drop the history of gradients."""
    scope, name, _ = split(path)
    return name in ("full", "full_1", "lift_fresh", {"transformer": "to_1", "model": "to"}.get(scope))


def test_gradients_that_cannot_be_right_are_refused(model: Case) -> None:
    """A patch whose value requires a gradient is refused where no gradient can reach it, but only in grad mode."""
    paths = [path for path in model.paths if below_autograd(path) and model.bare[path].numel()]
    assert bool(paths) == (model.attention == "eager")
    for path in paths:
        value = torch.tensor(0.25, requires_grad=True)
        for change in (Change("add", None, value), Change("replace", None, value)):
            with model.pg.patch({path: change.patch()}):
                with pytest.raises(RuntimeError) as refused:
                    model.pg(tokens())
                assert f"cannot be applied at {path}: " in str(refused.value)
                with torch.no_grad():
                    assert same(model.pg(tokens()).logits, model.by_hand({path: change}))


def test_gradients_through_every_node_are_those_of_the_model_by_hand(model: Case) -> None:
    """Of the loss by all parameters and by the patch's value: zero, add and replace in turn."""
    failures, reached = [], 0
    paths = [
        path
        for path in model.paths
        if model.bare[path].is_floating_point()
        and model.bare[path].numel()
        and not uninitialized(path)
        and not below_autograd(path)
    ]
    for number, path in enumerate(paths):
        value = torch.full(model.bare[path].shape[:-1], 0.1, requires_grad=True)
        index = (..., 0) if model.bare[path].dim() else None
        # A zero below a root or in a divisor makes everything NaN, which would hide differences.
        root = split(path)[1] in ("mean", "add") and "norm" in split(path)[0]
        kind = "add" if root else ("add", "zero", "replace")[number % 3]
        change = Change(kind, index, value if kind != "zero" else None)
        with model.pg.patch({path: change.patch()}):
            loss = loss_of(model.pg(tokens()).logits)
        by_hand = loss_of(model.by_hand({path: change}))
        if not (loss.isfinite() and same(loss, by_hand)):
            failures.append(f"{path}: {kind}: loss {loss}, by hand {by_hand}")
            continue
        expected = gradients(model, by_hand, value)
        reached += bool(expected["the patch's value"].any())
        for name, gradient in gradients(model, loss, value).items():
            if not same(gradient + 0.0, expected[name] + 0.0):  # + 0.0 removes the sign of zeros, which may differ
                failures.append(f"{path}: {kind}: gradient of {name} off by {(gradient - expected[name]).abs().max()}")
    report(failures)
    assert reached > len(paths) / 3


def keeping(seen: list[Tensor], edit: Edit) -> Edit:
    """The edit, which also keeps what it made."""

    def edit_and_keep(value: Tensor) -> Tensor:
        seen.append(edit(value))
        return seen[-1]

    return edit_and_keep


# --- generate() -------------------------------------------------------------------------------------------------------

STEPS = 5
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "no cache": {"do_sample": False, "use_cache": False},
    "sampling": {"do_sample": True, "top_k": 0, "temperature": 0.7},
    "beams": {"do_sample": False, "num_beams": 3},
}

# An operation, and the input or output of a module that is the same value.
TWINS = {
    "gpt2": {
        "transformer.wte.embedding": "transformer.wte.output",
        "transformer.h_0.ln_1.layer_norm": "transformer.h_0.ln_1.output",
        "transformer.h_0.attn.c_attn.view_1": "transformer.h_0.attn.c_attn.output",
        "transformer.h_0.attn.reshape": "transformer.h_0.attn.c_proj.x",
        "transformer.h_1.mlp.act.mul_3": "transformer.h_1.mlp.act.output",
        "transformer.h_1.add_1": "transformer.h_1.output|sub_0",
        "lm_head.linear": "lm_head.output",
    },
    "llama": {
        "model.embed_tokens.embedding": "model.embed_tokens.output",
        "model.rotary_emb.to_6": "model.rotary_emb.output|sub_1",
        "model.layers_0.input_layernorm.mul_1": "model.layers_0.input_layernorm.output",
        "model.layers_0.self_attn.k_proj.linear": "model.layers_0.self_attn.k_proj.output",
        "model.layers_1.mlp.act_fn.silu": "model.layers_1.mlp.act_fn.output",
        "model.layers_1.mlp.mul": "model.layers_1.mlp.down_proj.input",
        "model.layers_1.add_1": "model.layers_1.output",
    },
}


def prompt() -> Tensor:
    return tokens(2, 6)


def generate(model: Any, way: str) -> Any:
    torch.manual_seed(5)
    return model.generate(
        prompt(),
        attention_mask=torch.ones_like(prompt()),
        max_new_tokens=STEPS,
        return_dict_in_generate=True,
        output_logits=True,
        pad_token_id=0,
        **WAYS[way],
    )


def same_generation(a: Any, b: Any) -> bool:
    alike = torch.equal(a.sequences, b.sequences) and len(a.logits) == len(b.logits)
    return alike and all(map(same, a.logits, b.logits))


@pytest.mark.parametrize("way", WAYS)
def test_patches_hold_in_every_step_of_generate(model: Case, way: str) -> None:
    bare = generate(model.model, way)
    assert same_generation(generate(model.pg, way), bare)
    failures = []
    some = list(TWINS[model.name].items())
    for path, twin in some if way == "greedy" else some[::3]:
        add, replace = Change("add", (..., 0), 1.5), Change("replace", (..., slice(None, None, 3)), -0.5)
        for place, change in ((path, add), (twin, replace)):
            seen: list[Tensor] = []
            expected = hooked(model.model, {twin: keeping(seen, change)}, lambda: generate(model.model, way))
            assert len(seen) == STEPS and not same_generation(expected, bare)
            record = RecordPatch()
            with model.pg.patch({place: [change.patch(), record]}):
                patched = generate(model.pg, way)
            if not same_generation(patched, expected):
                failures.append(f"{place}: {change}")
            if len(record.activations) != STEPS or not all(map(same, record.activations, seen)):
                failures.append(f"{place}: {change}: other values in the steps")
    report(failures)
    assert same_generation(generate(model.pg, way), bare)


def test_a_patch_may_hold_for_some_steps_only(model: Case) -> None:
    path, change = list(TWINS[model.name].values())[-2], Change("zero", (..., slice(8)))

    def edit_steps(wanted: Callable[[int], bool]) -> Edit:
        count = iter(range(STEPS))
        return lambda value: change(value) if wanted(next(count)) else value

    results = []
    for runs, wanted in (("0", lambda n: n == 0), ("1..", lambda n: n >= 1), ("2..4", lambda n: 2 <= n < 4)):
        expected = hooked(model.model, {path: edit_steps(wanted)}, lambda: generate(model.model, "greedy"))
        with model.pg.patch({path: change.patch()}, runs=runs):
            patched = generate(model.pg, "greedy")
        assert same_generation(patched, expected), runs
        assert not any(same_generation(patched, other) for other in results)
        results.append(patched)


def test_what_a_patch_puts_into_the_cache_stays_there(model: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys and values of the first layer are patched where the cache puts them together: later steps find them
    patched, and patch them again."""
    layer = "transformer.h_0.attn" if model.name == "gpt2" else "model.layers_0.self_attn"
    keys, values = ("cat", "cat_1") if model.name == "gpt2" else ("cat_2", "cat_3")
    add, zero = Change("add", (..., 0), 0.25), Change("zero", (..., -1, slice(None)))
    with model.pg.patch({f"{layer}.{keys}": add.patch(), f"{layer}.{values}": zero.patch()}):
        patched = generate(model.pg, "greedy")
    update, calls = cache_utils.DynamicLayer.update, iter(range(2 * STEPS))

    def edited_update(self: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        update(self, *args, **kwargs)
        if next(calls) % 2 == 0:  # the layers take turns
            self.keys, self.values = add(self.keys), zero(self.values)
        return self.keys, self.values

    bare = generate(model.model, "greedy")
    monkeypatch.setattr(cache_utils.DynamicLayer, "update", edited_update)
    expected = generate(model.model, "greedy")
    assert next(calls, None) is None
    assert same_generation(patched, expected)
    assert not same_generation(patched, bare)


def test_recorded_steps_give_ranges_of_sizes(model: Case) -> None:
    """Prefill and decoding go into one graph, whose sizes span what the steps were seen to have."""
    inputs = {"input_ids": prompt(), "attention_mask": torch.ones_like(prompt())}
    pg = PatchableGraph(model.model, **inputs)
    first = {str(leaf): Shapes() for leaf in tensor_leaves(pg.graph)}
    bare = generate(model.model, "greedy")
    with pg.recording():
        assert same_generation(generate(pg, "greedy"), bare)
    records = {str(leaf): Shapes() for leaf in all_tensors(pg)}
    assert first.keys() <= records.keys()
    with torch.no_grad(), pg.patch(first):
        pg(**inputs)
    with pg.patch(records):
        assert same_generation(generate(pg, "greedy"), bare)
    failures, ranges = [], 0
    for path, record in records.items():
        shapes = [*record.seen, *(first[path].seen if path in first else ())]
        if len({len(shape) for shape in shapes}) != 1:
            continue
        spans = [(min(sizes), max(sizes)) for sizes in zip(*shapes)]
        expected = tuple(low if low == high else range(low, high + 1) for low, high in spans)
        ranges += any(isinstance(size, range) for size in expected)
        if tuple(pg.graph[path]._shape) != expected:
            failures.append(f"{path}: {pg.graph[path]._shape}, but {expected} was seen")
    report(failures)
    assert ranges > len(records) / 2
    keys = "transformer.h_1.attn.cat" if model.name == "gpt2" else "model.layers_1.self_attn.cat_2"
    assert pg.graph[keys]._shape[2] == range(6, 6 + STEPS)
    assert f"6..{6 + STEPS - 1}" in repr(pg.graph[keys])


class Shapes(Patch[Tensor]):
    """Keeps the sizes of the values that patches see. Inside vmap, a value is one example."""

    def __init__(self) -> None:
        self.requires_clone = False
        self.seen: list[torch.Size] = []

    def op(self, original_output: Tensor) -> Tensor:
        if isinstance(original_output, Tensor):
            self.seen.append(original_output.shape)
        return original_output


def all_tensors(pg: PatchableGraph) -> list[Any]:
    def below(node: Any) -> Any:
        for child in node:
            shape = child._shape
            if isinstance(shape, tuple) and not len(child) and "Tensor(" in repr(child):
                yield child
            yield from below(child)

    return list(below(pg.graph))


# --- other dtypes, and training ---------------------------------------------------------------------------------------


def dtype_failures(case: Case, model: torch.nn.Module, run: Callable[[], Tensor], dtype: torch.dtype) -> list[str]:
    """Patches at operations, and at the inputs and outputs of the second layer's modules, next to hooks."""
    pg = PatchableGraph(model, tokens())
    failures, dtypes = [], set()
    bare = run()
    twins = {**TWINS[case.name], **{path: path for path in in_out(case.paths) if ".h_1" in path or "layers_1" in path}}
    for path, twin in twins.items():
        if not case.bare[path].is_floating_point():
            continue
        probe = ProbePatch()
        for change in (Change("add", (..., 0), 0.7), Change("replace", (..., slice(2, 5)), 0.3), Change("zero")):
            with pg.patch({path: [change.patch(), probe]}):
                patched = run()
            seen: list[Tensor] = []
            expected = hooked(model, {twin: keeping(seen, change)}, run)
            if not (same(patched, expected) and same(probe.activation, seen[-1])):
                failures.append(f"{path}: {change}")
        dtypes.add(probe.activation.dtype)
    if dtype not in dtypes:
        failures.append(f"none of the values is {dtype}")
    if not same(run(), bare):
        failures.append("changed for good")
    return failures


@torch.no_grad()
def test_autocast(model: Case) -> None:
    def run() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model.model(tokens()).logits

    assert not same(run().float(), model.model(tokens()).logits)
    report(dtype_failures(model, model.model, run, torch.bfloat16))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "half"])
@torch.no_grad()
def test_models_of_half_the_precision(model: Case, dtype: torch.dtype) -> None:
    small = copy.deepcopy(model.model).to(dtype)
    report(dtype_failures(model, small, lambda: small(tokens()).logits, dtype))


def test_training_with_dropout(model: Case) -> None:
    """The random numbers are drawn as without patches, and gradients are those under hooks."""
    net = copy.deepcopy(model.model).train()
    if model.name == "llama":
        for layer in net.model.layers:
            layer.self_attn.attention_dropout = 0.3
    pg = PatchableGraph(net, tokens())

    def step() -> list[Tensor]:
        torch.manual_seed(11)
        net.zero_grad()
        loss = loss_of(net(tokens()).logits)
        loss.backward()
        return [loss, *(parameter.grad for parameter in net.parameters())]

    bare = step()
    assert not same(bare[0], loss_of(model.model(tokens()).logits))
    for path, twin in TWINS[model.name].items():
        change = Change("add", (..., 0), 0.4)
        with pg.patch({path: change.patch()}):
            patched = step()
        expected = hooked(net, {twin: change}, step)
        assert all(same(a + 0.0, b + 0.0) for a, b in zip(patched, expected)), path
        assert not same(patched[0], bare[0])
    assert all(map(same, step(), bare))
