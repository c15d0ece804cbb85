"""Refusals: when they happen, the exception, and the message."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from libgraphpatch import (
    AddPatch,
    CustomPatch,
    PatchableGraph,
    PatchError,
    ProbePatch,
    RecordPatch,
    ReplacePatch,
    ZeroPatch,
)
from nets import Calls, Net, TupleOutputModule, name_of, same


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, 2)


@pytest.fixture
def pg(x: Tensor) -> PatchableGraph:
    return PatchableGraph(TupleOutputModule(), x)


def test_all_bad_paths_in_one_error_before_anything_runs(pg: PatchableGraph) -> None:
    bad = {
        "nope": "nope",
        "linear": "scope",
        "output": "output|sub_0",
        "add|x": "add",
        "a..b": "a..b",
        "linear.wieght": "linear.weight",
        "output|sub_7": "sub_7",
    }
    with pytest.raises(KeyError) as error:
        pg.patch({**{path: ZeroPatch() for path in bad}, "x": ZeroPatch()})
    text = str(error.value)
    for path, named in bad.items():
        assert path in text and named in text
    assert "\n" in text and "\\n" not in text


@pytest.mark.parametrize(
    "patches",
    [None, ["x"], {"x": 3}, {"x": ZeroPatch}, {"x": [ZeroPatch(), None]}, {3: ZeroPatch()}, {None: ZeroPatch()}, "x"],
    ids=name_of,
)
def test_what_are_no_patches_at_all(pg: PatchableGraph, patches: Any) -> None:
    with pytest.raises(ValueError):
        pg.patch(patches)


@pytest.mark.parametrize(
    "patch",
    [
        ZeroPatch(slice="text"),
        ZeroPatch(slice=0.5),
        ZeroPatch(slice=slice("a", None)),
        ZeroPatch(slice=torch.ones(2)),
        ZeroPatch(slice=slice(None, None, -1)),
        AddPatch(value="text"),
        ReplacePatch(value=None),
        ReplacePatch(value=object()),
    ],
    ids=name_of,
)
def test_patches_that_can_never_apply(pg: PatchableGraph, x: Tensor, patch: Any) -> None:
    bare = pg(x)
    with pytest.raises(ValueError):
        with pg.patch({"x": patch}):
            pass
    assert all(map(same, pg(x), bare))


def test_other_arguments(pg: PatchableGraph) -> None:
    with pytest.raises(ValueError, match="'raise' or 'skip'"):
        pg.patch({}, on_error="ignore")
    with pytest.raises(TypeError):
        ZeroPatch((1,))  # type: ignore[misc]
    with pytest.raises(TypeError):
        AddPatch()  # type: ignore[call-arg]


def test_paths_of_another_module_are_unknown(pg: PatchableGraph) -> None:
    other = PatchableGraph(Net(), torch.randn(3, 4))
    with pytest.raises(KeyError, match="blocks_0"):
        pg.patch({other.graph.blocks_0.output: ZeroPatch()})


SHAPES = {
    "x": "(3, 2)",
    "linear.input": "(3, 2)",
    "linear_1.weight": "(3, 2)",
    "add": "(3, 2)",
    "linear_1.linear": "(3, 3)",
    "linear.output": "(3, 3)",
    "output|sub_1": "(3, 3)",
}


@pytest.mark.parametrize("path", SHAPES)
def test_a_slice_that_does_not_fit_names_path_shape_and_slice(pg: PatchableGraph, x: Tensor, path: str) -> None:
    bare = pg(x)
    with pg.patch({path: ZeroPatch(slice=(0, 9))}):
        with pytest.raises(PatchError) as error:
            pg(x)
    text = str(error.value)
    assert path in text and SHAPES[path] in text and "[0, 9]" in text
    assert not text.startswith("graphpatch:") and "Exception raised from" not in text
    assert all(map(same, pg(x), bare))


def test_a_value_that_does_not_fit(pg: PatchableGraph, x: Tensor) -> None:
    for value in (torch.ones(5), torch.ones(1, 3, 2), torch.ones(3, 2, dtype=torch.complex64)):
        for path in ("x", "add"):
            for patch in (AddPatch(value=value), ReplacePatch(value=value)):
                with pg.patch({path: patch}):
                    try:
                        expected = x.clone()
                        expected[...] = value if isinstance(patch, ReplacePatch) else expected.add_(value)
                    except RuntimeError:
                        with pytest.raises(PatchError, match=path):
                            pg(x)
                    else:
                        pg(x)


def test_skip_leaves_the_value_alone(pg: PatchableGraph, x: Tensor) -> None:
    bare = pg(x)

    def fail(value: Tensor) -> Tensor:
        raise LookupError("mine")

    outer = pg.patch({"add": ZeroPatch(slice=9)}, on_error="skip")
    with outer:
        with pg.patch({"x": ZeroPatch(slice=9), "linear.linear": CustomPatch(custom_op=fail)}, on_error="skip"):
            assert all(map(same, pg(x), bare))
        assert all(map(same, pg(x), bare))
    with pg.patch({"add": ZeroPatch(slice=9)}), pytest.raises(PatchError):
        pg(x)
    assert all(map(same, pg(x), bare))


class Mine(Exception):
    pass


@pytest.mark.parametrize("path", ["x", "add", "linear.weight", "linear_1.linear", "linear.output", "output|sub_0"])
@pytest.mark.parametrize("kind", [Mine, KeyError, RuntimeError, KeyboardInterrupt])
def test_a_functions_own_exception_reaches_the_caller(pg: PatchableGraph, x: Tensor, path: str, kind: Any) -> None:
    error = kind("mine")

    def fail(value: Tensor) -> Tensor:
        raise error

    with pg.patch({path: CustomPatch(custom_op=fail)}):
        for _ in range(2):
            with pytest.raises(kind) as raised:
                pg(x)
            assert raised.value is error
    assert len(pg(x)) == 2


def test_what_a_function_returns(pg: PatchableGraph, x: Tensor) -> None:
    for function, refused in [
        (lambda value: None, TypeError),
        (lambda value: "text", ValueError),
    ]:
        for path in ("x", "add", "output|sub_0"):
            with pg.patch({path: CustomPatch(custom_op=function)}), pytest.raises(refused):
                pg(x)


def test_an_error_in_a_nested_run_reaches_both(x: Tensor) -> None:
    inner = Net()
    x = torch.randn(3, 4)
    a, b = PatchableGraph(Calls(inner), x), PatchableGraph(inner, x)
    with a.patch({"mul": AddPatch(value=1.0)}), b.patch({"blocks_0.sigmoid": ZeroPatch(slice=9)}):
        with pytest.raises(PatchError, match="blocks_0.sigmoid"):
            a(x)
    with a.patch({"mul": ZeroPatch()}):
        assert not a(x).any()


def test_records_and_probes_of_a_failed_run_keep_what_came_before(pg: PatchableGraph, x: Tensor) -> None:
    record, probe = RecordPatch(), ProbePatch()
    with pg.patch({"add": [record, ZeroPatch(slice=9)], "linear_1.output": probe}):
        for _ in range(2):
            with pytest.raises(PatchError):
                pg(x)
    assert len(record.activations) == 2 and same(record.activations[0], x + 1) and probe.activation is None
