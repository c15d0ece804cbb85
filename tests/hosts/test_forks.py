"""Programs that fork while other threads run models: no child hangs, and a child that runs no model touches hardly any
of the library's memory."""

import re
from pathlib import Path

import pytest

from compiling import HERE, compile_with_model
from hosting import GRAPHPATCH, Left, run

CHILDREN, THREADS = 60, 4


@pytest.fixture(scope="module")
def forking(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(compile_with_model(HERE / "programs/forking.c", tmp_path_factory.mktemp("forking") / "forking"))


def ends(left: Left) -> dict[str, int]:
    assert left.code == 0, left
    return {what: int(count) for what, count in re.findall(r"(\w+) (\d+)", left.stdout.decode())}


@pytest.mark.parametrize(
    "options",
    [
        ["--tree"],
        ["--patch", "sub_0.linear[0:0]=zero"],
        ["--tree", "--probe", "sub_2.linear", "--save", "probes.safetensors"],
    ],
    ids=["recording", "patching", "probing"],
)
def test_no_child_hangs(options: list[str], forking: str, model: dict[str, str], tmp_path: Path) -> None:
    command = [str(GRAPHPATCH), "run", *options, "--", forking, str(CHILDREN), str(THREADS)]
    children = ends(run(command, tmp_path, model))
    # One child of fifty hangs in the bare program, too: libtorch does not release its own locks after a fork.
    assert children["wrong"] == 0 and children["hung"] <= CHILDREN // 15, children


def test_a_child_that_runs_nothing_touches_no_more_than_a_few_pages(
    forking: str, model: dict[str, str], tmp_path: Path
) -> None:
    bare = ends(run([forking, "5000"], tmp_path / "bare", model))["pages"]
    options = ["--tree", "--record", "sub_0.linear", "--save", "records.safetensors"]
    under = ends(run([str(GRAPHPATCH), "run", *options, "--", forking, "5000"], tmp_path / "under", model))["pages"]
    # Five thousand recorded values fill more than a thousand pages, which the child must not copy.
    assert under <= bare + 100, (bare, under)
