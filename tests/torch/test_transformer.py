"""Every node of the two-layer transformer, patched in every way, against the hand-written reference."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import models
import reference
from changes import KINDS_OF_CHANGE, SLICES, compare, outcome
from support import Saved, leaves, same_bits, weights_of

MODULE, (IDS,) = models.transformer()


def reference_run(changes: dict[str, list[reference.Change]]) -> tuple[torch.Tensor, ...]:
    return reference.transformer(reference.Taps(changes), MODULE, IDS)


@pytest.fixture(scope="module")
def recorded(transformer: Callable[[str], Saved]) -> dict[str, list[str]]:
    """The tensor leaves of each kind's graph. For the trace, without inner inputs, as a trace loses their names."""
    paths = {
        kind: [p for p, k in leaves(transformer(kind).run().ok().tree) if k.startswith("Tensor")]
        for kind in ("scripted", "traced")
    }
    taps = reference.Taps({})
    with torch.no_grad():
        reference.transformer(taps, MODULE, IDS)
    paths["traced"] = [path for path in paths["traced"] if path in taps.seen]
    assert set(paths["scripted"]) == set(taps.seen)
    return paths


@pytest.mark.parametrize("kind", ["scripted", "traced"])
def test_reference_is_the_module(transformer: Callable[[str], Saved], kind: str) -> None:
    with torch.no_grad():
        assert same_bits(transformer(kind).bare("--runs", 4).ok().outputs[0], [reference_run({})] * 4)


@pytest.mark.parametrize("mode", ["--no-grad", "--grad"])
@pytest.mark.parametrize("kind", ["scripted", "traced"])
def test_adding_zero_everywhere_changes_nothing(
    transformer: Callable[[str], Saved], recorded: dict[str, list[str]], kind: str, mode: str
) -> None:
    # PyTorch refuses to add a number to a bool tensor, and so do patches: the masks are left out.
    paths = [path for path in recorded[kind] if not path.endswith((".mask", ".expand"))]
    bare = transformer(kind).bare(mode, "--runs", 4).ok()
    patched = transformer(kind).run(mode, "--runs", 4, patches=[f"{path}=add:0" for path in paths]).ok()
    assert same_bits(bare.outputs, patched.outputs)
    assert same_bits(bare.weights, patched.weights) and same_bits(bare.inputs, patched.inputs)
    # Then each node is patched alone.
    swept = transformer(kind).sweep([[f"{path}=add:0"] for path in paths], mode)
    assert [
        path for path, (ran, output) in zip(paths, swept.results) if not ran or not same_bits(output, swept.bare)
    ] == []


@pytest.mark.parametrize("options", [["--no-grad"], ["--grad"], ["--grad", "--record"]], ids=" ".join)
@pytest.mark.parametrize("kind", ["scripted", "traced"])
def test_every_patch_at_every_node(
    transformer: Callable[[str], Saved], recorded: dict[str, list[str]], kind: str, options: list[str]
) -> None:
    patches, expected = [], []
    for path in recorded[kind]:
        for text, index in SLICES.items():
            for change, make in KINDS_OF_CHANGE.items():
                patches.append(f"{path}{text}={change}")
                expected.append(outcome(lambda: reference_run({path: [make(index)]})))
    swept = transformer(kind).sweep([[patch] for patch in patches], *options)
    compare(patches, swept.results, expected, same_bits)
    # After thousands of patched runs the module still has the same result.
    assert same_bits(swept.bare, outcome(lambda: reference_run({})))
    assert same_bits(swept.inputs, (IDS,))
    assert same_bits(swept.weights, weights_of(MODULE))


SAMPLE = [
    ("layers_0.attn.chunk|sub_1", "[..., 1:3]", "zero"),
    ("layers_0.attn.dropout.dropout", "", "zero"),
    ("layers_1.attn.softmax", "[0]", "replace:0.5"),
    ("layers_1.mlp.gelu", "[-1]", "add:1"),
    ("layers_0.mlp.output", "", "zero"),
    ("layers_0.mlp.hidden", "[::2]", "zero"),
    ("head.weight", "[0]", "zero"),
    ("output|sub_0", "[0]", "add:1"),
]


@pytest.mark.parametrize("path, text, change", SAMPLE)
def test_a_sample_from_the_command_line(transformer: Callable[[str], Saved], path: str, text: str, change: str) -> None:
    expected = outcome(lambda: reference_run({path: [KINDS_OF_CHANGE[change](SLICES[text])]}))
    result = transformer("scripted").run("--runs", 4, patches=[f"{path}{text}={change}"], extra=["--summary"]).ok()
    assert same_bits(result.outputs[0], [expected] * 4)
    assert same_bits(result.weights, weights_of(MODULE)) and same_bits(result.inputs, (IDS,))
    assert path in result.stderr.replace(result.tree, ""), "no summary of the patch"


def test_several_patches_at_once_act_in_order(transformer: Callable[[str], Saved]) -> None:
    gelu, scores = "layers_0.mlp.gelu", "layers_1.attn.softmax"
    changes: dict[str, list[Any]] = {
        gelu: [KINDS_OF_CHANGE["replace:0.5"](0), KINDS_OF_CHANGE["add:1"](...)],
        scores: [KINDS_OF_CHANGE["zero"]((..., slice(1, 3)))],
    }
    patches = [f"{gelu}[0]=replace:0.5", f"{scores}[..., 1:3]=zero", f"{gelu}=add:1"]
    result = transformer("scripted").run(patches=patches).ok()
    assert same_bits(result.output, outcome(lambda: reference_run(changes)))
