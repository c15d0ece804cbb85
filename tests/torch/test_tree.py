"""The recorded graph: its exact text, which must be the same however the program runs the module."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import models
import reference
from models import TUPLE_OUTPUT_TREE
from support import KINDS, Saved, graphpatch, leaves, nodes, same_bits, shape_text

X = torch.arange(96.0).view(2, 3, 4, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_tuple_output_tree_is_the_text_of_the_spec(tuple_output: Callable[[str], Saved], kind: str) -> None:
    assert tuple_output(kind).run().ok().tree == TUPLE_OUTPUT_TREE


@pytest.mark.parametrize("mode", ["--grad", "--no-grad", "--inference-mode"])
@pytest.mark.parametrize("kind", KINDS)
def test_same_graph_in_every_run_and_mode(tuple_output: Callable[[str], Saved], kind: str, mode: str) -> None:
    # TorchScript runs a module unoptimized at first, then profiles it, and optimizes it from the third run on.
    for runs in (1, 2, 3, 10):
        assert tuple_output(kind).run(mode, "--runs", runs).ok().tree == TUPLE_OUTPUT_TREE, f"{runs} runs"


def test_saved_graphs_are_equal_with_grad_on_and_off(transformer: Callable[[str], Saved], tmp_path: Path) -> None:
    for runs in (1, 2, 5):
        files = [tmp_path / f"{mode}{runs}.json" for mode in ("--grad", "--no-grad")]
        for file, mode in zip(files, ("--grad", "--no-grad")):
            transformer("scripted").run(mode, "--runs", runs, graph=file, tree=False).ok()
        assert files[0].read_bytes() == files[1].read_bytes(), f"{runs} runs"


@pytest.mark.parametrize("kind", KINDS)
def test_show_prints_the_tree_and_a_subtree(tuple_output: Callable[[str], Saved], graph_file: Path, kind: str) -> None:
    tuple_output(kind).run(graph=graph_file, tree=False).ok()
    assert graphpatch("show", graph_file).ok().stdout == TUPLE_OUTPUT_TREE
    subtree = graphpatch("show", graph_file, "linear").ok().stdout
    assert subtree.splitlines()[:2] == ["linear: Graph(5)", "├─input: Tensor(3, 2)"]
    assert graphpatch("show", graph_file, "linear_0").ok().stdout == subtree


def test_transformer_graph_is_what_the_reference_taps(transformer: Callable[[str], Saved]) -> None:
    module, (ids,) = models.transformer()
    taps = reference.Taps({})
    with torch.no_grad():
        reference.transformer(taps, module, ids)
    expected = [(path, shape_text(value)) for path, value in taps.seen.items()]
    assert leaves(transformer("scripted").run("--runs", 3).ok().tree) == expected


def test_traced_transformer_has_the_same_nodes(transformer: Callable[[str], Saved]) -> None:
    scripted, traced = (leaves(transformer(kind).run().ok().tree) for kind in KINDS)
    # A trace may lose argument names of inner modules, so only the number of their inputs is compared.
    named = [(p, k) for p, k in scripted if "." not in p or p.rsplit(".", 1)[1] not in ("input", "x", "hidden")]
    rest = iter(traced)
    missing = [node for node in named if node not in rest]
    assert not missing and len(traced) == len(scripted)


def test_recording_changes_no_output(transformer: Callable[[str], Saved]) -> None:
    for mode in ("--grad", "--no-grad"):
        bare = transformer("scripted").bare(mode, "--runs", 4).ok()
        recorded = transformer("scripted").run(mode, "--runs", 4).ok()
        assert same_bits(bare.outputs, recorded.outputs)
        assert same_bits(bare.weights, recorded.weights)
        assert bare.stdout == recorded.stdout


@pytest.mark.parametrize("how", ["saved frozen", "frozen by the program"])
def test_frozen_module_keeps_its_operations_and_says_what_it_lost(
    transformer: Callable[[str], Saved], how: str
) -> None:
    saved, options = (transformer("frozen"), []) if how == "saved frozen" else (transformer("scripted"), ["--freeze"])
    bare, result = saved.bare("--runs", 3, *options).ok(), saved.run("--runs", 3, *options).ok()
    assert same_bits(bare.outputs, result.outputs)
    names = [path for path, _ in nodes(result.tree)]
    assert {"ids", "softmax", "softmax_1", "chunk|sub_1", "topk|sub_0", "gelu"} <= set(names)
    # Freezing calls aten::equal hundreds of times, but loading and optimizing are not part of a run.
    assert not [name for name in names if name.startswith("equal")]
    assert "frozen" in result.stderr.lower(), "stderr says nothing of what freezing lost"


def test_optimized_for_inference_runs(transformer: Callable[[str], Saved]) -> None:
    options = ["--runs", 3, "--freeze", "--optimize"]
    bare, result = transformer("scripted").bare(*options).ok(), transformer("scripted").run(*options).ok()
    assert same_bits(bare.outputs, result.outputs)
    assert "softmax" in dict(nodes(result.tree))


@pytest.mark.parametrize(
    "options", [["--freeze"], ["--freeze", "--optimize"], ["--freeze", "--threads", "3"]], ids=" ".join
)
def test_a_frozen_module_whose_functions_are_freed(exported: Callable[..., Saved], options: list[str]) -> None:
    saved = exported("norm", torch.nn.Sequential(torch.nn.InstanceNorm2d(3, track_running_stats=True)).eval(), (X,))
    bare, result = saved.bare("--runs", 3, *options).ok(), saved.run("--runs", 3, *options).ok()
    assert same_bits(bare.outputs, result.outputs)
    assert "instance_norm" in dict(nodes(result.tree))


def test_submodule_called_directly_is_the_root(transformer: Callable[[str], Saved], tmp_path: Path) -> None:
    saved = transformer("scripted")
    inputs = tmp_path / "hidden.pt"
    torch.save((torch.randn(models.BATCH, models.TOKENS, models.WIDTH),), inputs)
    tree = Saved(saved.model, inputs, tmp_path).run("--submodule", "layers.1.mlp").ok().tree
    assert [path for path, _ in nodes(tree) if "." not in path] == ["hidden", "up", "gelu", "down", "output"]


def test_names_that_need_a_suffix_or_prefix(exported: Callable[..., Saved]) -> None:
    saved = exported("names", models.Names(), (torch.randn(3, 3),))
    tree = saved.run().ok().tree
    top = [path for path, _ in nodes(tree) if "." not in path]
    assert top == ["x", "seq", "pow_1", "sum_1", "sum_2", "add", "abs_1", "max_1", "add_1", "output"]
    assert [path for path, kind in nodes(tree) if kind.startswith("Graph")] == ["seq", "seq.sub_0", "seq.sub_1"]


def test_control_flow_records_what_ran(exported: Callable[..., Saved]) -> None:
    tree = exported("loop", models.Loop(), (torch.randn(2, 4), 3)).run("--runs", 3).ok().tree
    assert [path for path, _ in nodes(tree) if "." not in path] == [
        "x",
        "steps",
        "linear",
        "tanh",
        "linear_1",
        "output",
    ]
    assert dict(nodes(tree))["steps"] == "int"
