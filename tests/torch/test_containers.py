"""Tuples, lists and dicts as results of operations and as outputs, and inputs that are not tensors."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import models
from support import Saved, graphpatch, nodes, same_bits

X = torch.arange(12.0).reshape(3, 4)


def test_lists_and_tuples(exported: Callable[..., Saved]) -> None:
    saved = exported("containers", models.Containers(), (X,))
    kinds = dict(nodes(saved.run().ok().tree))
    assert kinds["split"] == "list(2)" and kinds["split|sub_1"] == "Tensor(3, 2)"
    assert kinds["topk"] == "tuple(2)" and kinds["topk|sub_1"] == "Tensor(2, 2)"
    assert kinds["output"] == "tuple(3)" and kinds["output|sub_0"] == "list(2)"
    assert kinds["output|sub_0.sub_1"] == "Tensor(3, 2)"


@pytest.mark.parametrize("kind", ["scripted", "traced"])
def test_patches_inside_containers(exported: Callable[..., Saved], kind: str) -> None:
    saved = exported("containers", models.Containers(), (X,), kind)
    (first, second), values, indices = models.Containers()(X)
    one = torch.ones(3, 2)
    cases = {
        "split|sub_1=zero": ([first, one], values, indices),
        "topk|sub_0=zero": ([first, second], torch.zeros_like(values), indices),
        "topk|sub_1=add:1": ([first, second], values, indices + 1),
        "output|sub_0.sub_1=replace:2": ([first, one * 2], values, indices),
        "output|sub_2[0]=replace:7": ([first, second], values, torch.stack([torch.full((2,), 7), indices[1]])),
    }
    for patch, expected in cases.items():
        result = saved.run("--runs", 3, patches=[patch]).ok()
        assert all(same_bits(run, expected) for run in result.outputs[0]), patch


def test_zeroing_one_chunk_leaves_the_tensor_it_came_from(exported: Callable[..., Saved]) -> None:
    saved = exported("containers", models.Containers(), (X,))
    (first, second), values, indices = models.Containers()(torch.cat([torch.zeros(3, 2), X[:, 2:]], dim=1))
    result = saved.run("--runs", 3, patches=["split|sub_0=zero"]).ok()
    (got_first, got_second), got_values, _ = result.output
    assert same_bits((got_first, got_second, got_values), (first, second, values))
    assert same_bits(result.inputs, (X,))


def test_dict_output(exported: Callable[..., Saved]) -> None:
    saved = exported("dict_output", models.DictOutput(), (X,))
    result = saved.run("--runs", 3, patches=["output|half=zero"]).ok()
    kinds = dict(nodes(result.tree))
    assert kinds["output"] == "dict(2)" and kinds["output|half"] == "Tensor(3, 4)"
    assert all(same_bits(dict(run), {"double": X * 2.0, "half": X * 0.0}) for run in result.outputs[0])


@pytest.mark.parametrize(
    "model, double, half",
    [(models.NumberedOutput(), (1, "1"), (-5, "-5")), (models.FlaggedOutput(), (True, "True"), (False, "False"))],
)
def test_keys_that_are_numbers(
    exported: Callable[..., Saved], model: nn.Module, double: tuple[int, str], half: tuple[int, str]
) -> None:
    saved = exported(type(model).__name__, model, (X,))
    result = saved.run("--runs", 3, patches=[f"output|{half[1]}=zero"]).ok()
    kinds = dict(nodes(result.tree))
    assert kinds["output"] == "dict(2)" and kinds[f"output|{half[1]}"] == "Tensor(3, 4)"
    assert all(same_bits(dict(run), {double[0]: X * 2.0, half[0]: X * 0.0}) for run in result.outputs[0])


def test_keys_that_have_no_names_are_told(exported: Callable[..., Saved]) -> None:
    result = exported("measured", models.MeasuredOutput(), (X,)).run("--runs", 3).ok()
    assert dict(nodes(result.tree))["output"] == "dict (keys without names)"
    assert all(same_bits(dict(run), {0.5: X * 2.0, 1.5: X / 2.0}) for run in result.outputs[0])


def test_optional_and_plain_inputs(exported: Callable[..., Saved]) -> None:
    saved = exported("optional_input", models.OptionalInput(), (X, None, 2.0))
    kinds = dict(nodes(saved.run().ok().tree))
    assert kinds["bias"] == "NoneType" and kinds["scale"] == "float" and kinds["x"] == "Tensor(3, 4)"
    assert same_bits(saved.run("--runs", 3, patches=["scale=add:1"]).ok().output, X * 3.0)
    assert same_bits(saved.run("--runs", 3, patches=["scale=replace:5"]).ok().output, X * 5.0)


def test_optional_input_given(exported: Callable[..., Saved]) -> None:
    saved = exported("optional_given", models.OptionalInput(), (X, torch.ones(4)))
    result = saved.run("--runs", 3, patches=["bias=zero"]).ok()
    assert dict(nodes(result.tree))["bias"] == "Tensor(4)"
    assert all(same_bits(run, X * 3.0) for run in result.outputs[0])


def test_a_patch_at_an_operation_with_two_results_needs_a_dig(exported: Callable[..., Saved]) -> None:
    result = exported("containers", models.Containers(), (X,)).run("--runs", 3, patches=["topk=zero"])
    assert result.code == 3 and "the value in this run is a tuple(2), not one value" in result.stderr
    assert "as in |sub_0" in result.stderr


def test_a_container_without_dig_is_refused(exported: Callable[..., Saved], tmp_path: object) -> None:
    saved = exported("containers", models.Containers(), (X,))
    graph = saved.folder / "graph.json"
    saved.run(graph=graph, tree=False).ok()
    result = graphpatch("check", graph, "--patch", "split=zero")
    assert result.code == 2 and "split" in result.stderr and "split|sub_0" in result.stderr
