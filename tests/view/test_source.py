"""Where a node was called, on the page of `graphpatch view`: the reader's own frames first, installed packages folded away."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PACKAGE = "/opt/venv/lib/python3.12/site-packages/zoo/model.py"
OWN, LOOP = "/mine/train.py", "/mine/loop.py"


def frame(file: str, line: int) -> dict[str, Any]:
    return {"file": file, "line": line, "function": f"f{line}", "text": f"call {line}"}


NODES = {
    "own": [frame(OWN, 1), frame(PACKAGE, 2), frame(LOOP, 3), frame(PACKAGE, 4), frame(PACKAGE, 5)],
    "installed": [frame(PACKAGE, 6), frame("/usr/lib/python3/dist-packages/zoo.py", 7), frame(PACKAGE, 8)],
    "mine": [frame(OWN, 9)],
}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    value = {"tensor": {"shape": [1], "dtype": "float32", "device": "cpu", "layout": "strided"}}
    children = [{"name": "x", "kind": "input", "value": value}] + [
        {"name": name, "kind": "op", "target": "aten::relu", "value": value, "args": [{"node": "x"}], "frames": frames}
        for name, frames in NODES.items()
    ]
    root = {"name": "<root>", "kind": "scope", "children": children}
    file = tmp_path_factory.mktemp("source") / "frames.json"
    file.write_text(json.dumps({"format": 1, "graphs": [{"name": "M.forward", "runs": 1, "root": root}]}))
    return file


def lines(*frames: dict[str, Any]) -> list[str]:
    return [
        line
        for each in frames
        for line in (f'File "{each["file"]}", line {each["line"]}, in {each["function"]}', f"    {each['text']}")
    ]


def shown(page: Any, within: str) -> list[str]:
    return page.locator(f"{within} > div").evaluate_all("all => all.map(line => line.textContent)")


def test_own_frames_come_first(graph: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(graph, hash="#own")
    stack = NODES["own"]
    assert shown(page, "#code") == lines(stack[0], stack[2])
    folded = page.locator("#code details")
    assert not folded.evaluate("it => it.open")
    summary = folded.locator("summary")
    assert summary.inner_text() == "3 frames in installed packages, the innermost one: model.py, line 5, in f5: call 5"
    assert not page.locator("#code").get_by_text("call 4").is_visible()
    summary.click()
    assert page.locator("#code").get_by_text("call 4").is_visible()
    assert shown(page, "#code details") == lines(stack[1], stack[3], stack[4])


def test_the_innermost_frame_stands_for_the_rest(graph: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(graph, hash="#installed")
    stack = NODES["installed"]
    assert shown(page, "#code") == lines(stack[2])
    assert page.locator("#code summary").inner_text() == "2 frames in installed packages around it"
    page.locator("#rows .row[data-path=mine]").click()
    assert shown(page, "#code") == lines(*NODES["mine"]) and page.locator("#code summary").count() == 0
