"""Every wrong request has its own message and exit code. If it can be seen early, the program is not started."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from support import GRAPHPATCH, PROGRAMS, Saved, graphpatch, run_process, same_bits


@pytest.fixture
def graph(tuple_output: Callable[[str], Saved], graph_file: Path) -> Path:
    tuple_output("scripted").run(graph=graph_file, tree=False).ok()
    return graph_file


# Bad paths, each with a text that the message must contain as well.
BAD_PATHS = [
    ("linear.liner", "linear.linear"),  # unknown: the message has the nearest name
    ("linear", "linear.linear"),  # a scope: the message has the nodes below it
    ("output", "output|sub_0"),  # a container without a dig
    ("linear.linear|sub_0", "linear.linear"),  # a dig past a leaf
]


@pytest.mark.parametrize("path, hint", BAD_PATHS)
def test_a_bad_path_against_a_graph_stops_before_the_program(
    tuple_output: Callable[[str], Saved], graph: Path, path: str, hint: str
) -> None:
    result = tuple_output("scripted").run(patches=[f"{path}=zero"], extra=["--against", graph])
    assert result.code == 2 and result.stdout == "" and not result.outputs
    assert path in result.stderr and hint in result.stderr
    checked = graphpatch("check", graph, "--patch", f"{path}=zero")
    assert checked.code == 2 and hint in checked.stderr + checked.stdout


def test_all_bad_paths_come_in_one_error(tuple_output: Callable[[str], Saved], graph: Path) -> None:
    patches = [f"{path}=zero" for path, _ in BAD_PATHS]
    result = tuple_output("scripted").run(patches=[*patches, "add=zero"], extra=["--against", graph])
    assert result.code == 2 and all(path in result.stderr for path, _ in BAD_PATHS)


def test_good_paths_pass_the_check(graph: Path) -> None:
    for patch in (
        "linear.linear=zero",
        "linear_1.output[0]=add:1",
        "output|sub_1[..., 0]=replace:2",
        "linear_0.input=zero",
    ):
        graphpatch("check", graph, "--patch", patch).ok()


@pytest.mark.parametrize("path, hint", BAD_PATHS)
def test_a_bad_path_without_a_graph_is_reported_at_the_end(
    tuple_output: Callable[[str], Saved], path: str, hint: str
) -> None:
    saved = tuple_output("scripted")
    result = saved.run(patches=[f"{path}=zero"], tree=False)
    assert path in result.stderr
    assert result.code == 3
    assert same_bits(result.outputs, saved.bare().ok().outputs)
    if path.startswith(("output", "linear.linear|")) and f"patch {path}=zero failed" in result.stderr:
        # A run reached the node, but no patch can be applied there: with --on-error raise the program gets the error.
        raised = saved.run(patches=[f"{path}=zero"], tree=False, extra=["--on-error", "raise"])
        assert raised.code == 1 and "runner: " in raised.stderr
    else:
        assert hint in result.stderr


def test_a_buffer_that_is_only_written_to_says_so(tmp_path: Path) -> None:
    model, inputs = torch.jit.script(torch.nn.BatchNorm1d(3)), (torch.ones(2, 3),)
    saved = Saved(tmp_path / "m.pt", tmp_path / "x.pt", tmp_path)
    model.save(str(saved.model))
    torch.save(inputs, saved.inputs)
    result = saved.run("--runs", 2, patches=["running_mean=add:1"])
    assert result.code == 3 and "never matched, since no operation read that parameter or buffer" in result.stderr


def test_only_modules_have_a_second_name(tuple_output: Callable[[str], Saved]) -> None:
    """The first call of a module may also be written `linear_0`; the first `add` may not be written `add_0`."""
    saved = tuple_output("scripted")
    bare = saved.bare()
    result = saved.run(patches=["add_0=zero"])
    assert result.code == 3 and "patch add_0=zero never matched" in result.stderr
    assert same_bits(result.outputs, bare.outputs)
    result = saved.run(patches=["linear_0.output=zero"])
    assert result.code == 0 and not same_bits(result.outputs, bare.outputs)


def test_the_programs_own_failure_keeps_its_code(tmp_path: Path) -> None:
    result = run_process(
        [GRAPHPATCH, "run", "--patch", "nothing=zero", "--", PROGRAMS / "infer", tmp_path / "no.pt", "x"]
    )
    assert result.code == 1


def test_a_missing_model_gives_the_programs_own_message(tuple_output: Callable[[str], Saved], tmp_path: Path) -> None:
    saved = Saved(tmp_path / "missing.pt", tuple_output("scripted").inputs, tmp_path)
    result = saved.run()
    assert result.code == 1 and "cannot open the model" in result.stderr


@pytest.mark.parametrize("text", ["[7]", "[..., 0, 0, 0]", "[0, 0, 0]", "[-4]"])
def test_a_slice_beyond_the_shape_reaches_the_program(tuple_output: Callable[[str], Saved], text: str) -> None:
    saved = tuple_output("scripted")
    raised = ["--on-error", "raise"]
    result = saved.run("--catch", patches=[f"linear.linear{text}=zero"], tree=False, extra=raised)
    # The program caught the error: with --catch it writes the message as the run's output.
    message = result.output
    assert isinstance(message, str)
    assert "linear.linear" in message and re.search(r"[(\[]3, 3[)\]]", message) and text in message
    assert result.code == 3 and "linear.linear" in result.stderr
    uncaught = saved.run(patches=[f"linear.linear{text}=zero"], tree=False, extra=raised)
    assert uncaught.code == 1 and "linear.linear" in uncaught.stderr


def test_skip_counts_a_slice_beyond_the_shape(tuple_output: Callable[[str], Saved]) -> None:
    saved = tuple_output("scripted")
    result = saved.run("--runs", 4, patches=["linear.linear[7]=zero"], tree=False)
    assert result.code == 3 and "linear.linear" in result.stderr
    assert same_bits(result.outputs, saved.bare("--runs", 4).ok().outputs)


@pytest.mark.parametrize(
    "patch",
    [
        "",
        "=zero",
        "add",
        "add=",
        "add=nul",
        "add[=zero",
        "add[1.5]=zero",
        "add=add:",
        "add=add:x",
        "add[::0]=zero",
        "a..b=zero",
        "add[0]]=zero",
    ],
)
def test_a_patch_that_cannot_be_read(tuple_output: Callable[[str], Saved], patch: str) -> None:
    result = tuple_output("scripted").run(patches=[patch])
    assert result.code == 2 and result.stdout == "" and result.stderr.strip()


@pytest.mark.parametrize("damage", ["", "{", '{"format": 99}', "[]", '{"format": "one"}', "half", "binary"])
def test_a_damaged_graph_file(graph: Path, damage: str) -> None:
    text = graph.read_text()
    if damage == "binary":
        graph.write_bytes(bytes(range(256)))
    else:
        graph.write_text(text[: len(text) // 2] if damage == "half" else damage)
    for command in (["show", graph], ["check", graph, "--patch", "add=zero"]):
        result = graphpatch(*command)
        assert result.code == 2 and str(graph) in result.stderr
        assert "panicked" not in result.stderr


def test_a_missing_graph_file(tmp_path: Path) -> None:
    result = graphpatch("show", tmp_path / "none.json")
    assert result.code == 2 and "none.json" in result.stderr


def test_an_unknown_program_and_no_program() -> None:
    unknown = graphpatch("run", "--tree", "--", "./no-such-program")
    assert unknown.code == 2 and "no-such-program" in unknown.stderr
    assert graphpatch("run", "--tree").code == 2
    assert graphpatch("run", "--no-such-option", "--", "/bin/ls").code == 2
    assert graphpatch("run", "--on-error", "explode", "--", "/bin/ls").code == 2


def test_a_graph_that_cannot_be_written_stops_before_the_program(
    tuple_output: Callable[[str], Saved], tmp_path: Path
) -> None:
    result = tuple_output("scripted").run(graph=tmp_path / "no" / "such" / "folder.json")
    assert result.code == 2 and result.stdout == "" and "folder.json" in result.stderr
