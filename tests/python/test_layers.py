"""The package is built in layers: what a module imports lies below it, and stands at its top."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

from checkout import ROOT

PACKAGE = ROOT / "bindings" / "python" / "libgraphpatch"


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imported(tree: ast.AST) -> set[str]:
    """The package's modules that a module imports anywhere in its code, except for imports for type checkers."""
    unseen = {id(node) for part in ast.walk(tree) if is_for_types(part) for node in ast.walk(part)}
    found = set()
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {node.module} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("libgraphpatch"):
            found.add(node.module.partition(".")[2] or "__init__")
    return found


def layers(package: Path) -> list[str]:
    """The modules, lowest first. Raises graphlib.CycleError."""
    modules = {file.stem: imported(ast.parse(file.read_text(encoding="utf-8"))) for file in package.glob("*.py")}
    unknown = {name: below - set(modules) for name, below in modules.items() if below - set(modules)}
    assert not unknown, unknown
    return list(graphlib.TopologicalSorter(modules).static_order())


def test_no_module_imports_one_above_it() -> None:
    order = layers(PACKAGE)
    assert order.index("_header") < order.index("_library") < order.index("_thread") < order.index("_module_call")
    assert order.index("_thread") < order.index("_dynamo") < order.index("_run")


def test_a_circle_would_be_found(tmp_path: Path) -> None:
    for name, text in {"a": "from .b import x", "b": "from . import c", "c": "def f():\n    from .a import y"}.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    try:
        layers(tmp_path)
    except graphlib.CycleError as error:
        assert {"a", "b", "c"} <= set(error.args[1])
    else:
        raise AssertionError("the circle was not found")
