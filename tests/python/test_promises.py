"""docs/promises.md names a test for each promise: every one of them exists."""

from __future__ import annotations

import re

from conftest import ROOT

DOCUMENT = ROOT / "docs" / "promises.md"


def rows() -> list[str]:
    """The rows of the tables of promises, without the headings."""
    lines = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [line for line in lines if not line.startswith(("| promise", "|---"))]


def test_each_promise_names_tests_that_exist() -> None:
    assert len(rows()) > 20
    for row in rows():
        tests = re.findall(r"`([\w/.]+\.(?:py|rs))::(\w+)`", row)
        assert tests, row
        for file, name in tests:
            text = (ROOT / file).read_text(encoding="utf-8")
            define = "def" if file.endswith(".py") else "fn"
            found = re.search(rf"^( *)(?:#\[test\]\n *)?{define} {name}\(", text, flags=re.M)
            assert found, f"{file} has no {name}"
            if define == "fn":
                before = text[: text.index(f"fn {name}(")]
                assert before.rstrip().endswith("#[test]"), f"{file}: {name} is no test"
