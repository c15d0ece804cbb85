"""Paths agree with the Python package graphpatch as far as docs/agreement.md says; the rest is explained.

The comparison runs in a process of its own, with the version of transformers that the reference was made with.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE.parent / "requirements.txt"
PAGE = HERE.parents[1] / "docs" / "agreement.md"


def python(*arguments: object) -> str:
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=HERE / "helpers", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("agreement")
    python("agreement.py", "--json", folder / "paths.json", "--markdown", folder / "page.md")
    paths, page = [(folder / name).read_text(encoding="utf-8") for name in ("paths.json", "page.md")]
    return json.loads(paths), page


def test_every_path_is_explained(compared: tuple[dict[str, Any], str]) -> None:
    fixtures = {name: fixture.get("found", {}) for name, fixture in compared[0]["fixtures"].items()}
    paths = [(name, path, what) for name, found in fixtures.items() for path, what in found.items()]
    assert len(paths) > 2000
    assert [f"{name} {path}" for name, path, what in paths if what["result"] == "unexplained"] == []


def test_names_are_those_of_torch_fx(compared: tuple[dict[str, Any], str]) -> None:
    assert compared[0]["misnamed"] == []


def shares(page: str) -> tuple[int, int]:
    same = re.search(r"have the same path \| (\d+)", page)
    together = re.search(r"together\*\* \| \*\*(\d+)", page)
    assert same and together
    return int(same[1]), int(together[1])


def test_as_many_paths_agree_as_published(compared: tuple[dict[str, Any], str]) -> None:
    same, together = shares(compared[1])
    published_same, published_together = shares(PAGE.read_text(encoding="utf-8"))
    assert same >= published_same
    assert together >= published_together


def test_the_page_is_up_to_date(compared: tuple[dict[str, Any], str]) -> None:
    """The page is made with the pinned torch. With another torch the agreement is the same, but the page names that
    version, and the number of operations that graphpatch has no tensors for may differ."""
    pinned = re.search(r"^torch==(\S+)$", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned
    pages = [PAGE.read_text(encoding="utf-8"), compared[1]]
    if compared[0]["versions"]["libgraphpatch"]["torch"] != pinned[1]:
        own = r"\(torch \S+ the same|has \d+ more tensors|\| \d+ \| results of operations \|"
        assert [len(re.findall(own, page)) for page in pages] == [3, 3]
        pages = [" ".join(re.sub(own, "", page).split()) for page in pages]  # lines may be broken elsewhere
    assert pages[0] == pages[1], "run `make agreement` and commit docs/agreement.md"


WRONG = """
import json
import agreement
tensors = json.loads(agreement.REFERENCE.read_text())["fixtures"]["tuple_output"]["tensors"]
values = json.loads(agreement.VALUES.read_text())["tuple_output"]
found = {}
for path, wrong in [("x", "y"), ("linear_0.weight", "linear_0.weights"), ("linear_1.linear", "linear_1.addmm"),
                    ("add", "plus"), ("add", "add_1"), ("output|sub_1", "output|sub_2"), ("output|sub_1", "output")]:
    renamed = [{wrong if path == key else key: one for key, one in either.items()} for either in (tensors, values)]
    found[wrong] = agreement.compare("tuple_output", *renamed)[0][wrong].result
renamed = [{key.replace("linear_1.", "linear_2."): one for key, one in either.items()} for either in (tensors, values)]
found["linear_2"] = agreement.compare("tuple_output", *renamed)[0]["linear_2.input"].result
found["another value"] = agreement.compare("tuple_output", tensors, {**values, "add": [7.0, 7.0]})[0]["add"].result
found["right"] = agreement.compare("tuple_output", tensors, values)[0]["add"].result
print(json.dumps(found))
"""


def test_a_wrong_name_is_not_explained_away() -> None:
    found = json.loads(python("-c", WRONG))
    assert found.pop("right") == "same"
    # A different number counts as explained by other nodes; test_names_are_those_of_torch_fx checks the numbers.
    assert found.pop("add_1") == "number"
    assert found == dict.fromkeys(found, "unexplained")
