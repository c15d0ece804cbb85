"""Writes down which NodePaths the Python package graphpatch gives to the models in fixtures.py.

    python record.py [OUT_FILE] [--only NAME ...]

Run it with a Python that has graphpatch 0.2.3, torch 2.5.1, numpy below 2.1 and transformers. The result is committed,
so only a change of fixtures.py needs another run. For every fixture the file holds either "error" or

- "tensors": every leaf that holds a tensor, by its path (the part after | digs into a container), with its shape and
  with what the node is in graphpatch's graph: placeholder, get_attr, output, or the function or method it calls.
  With torch 2.5, a result that the model assigns to a local variable is named after that variable instead
  of the operation; "unassigned" is then the path that the same node has without this;
- "uncompiled": the modules that graphpatch could not look into, with the first line of the reason;
- "tree": graphpatch's own picture of the whole graph.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # models come from their configs
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "helpers"))

import torch
from graphpatch import ExtractionOptions, PatchableGraph
from graphpatch.meta import GraphMeta, NodePath, NodeShape
from torch._dynamo.variables.tensor import TensorVariable

from fixtures import FIXTURES

# What differs from run to run or from machine to machine in the text of an error.
CHANGING = [
    (re.compile(r"0x[0-9a-f]+"), "0x"),
    (re.compile(r"<eval_with_key>\.\d+"), "<eval_with_key>"),
    (re.compile(r",? ?[^,]*https?:\S+"), ""),
    (re.compile(r"(/[\w.+-]+)+/(?=[\w.+-]+)"), ""),
]


def first_line(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    for pattern, instead in CHANGING:
        line = pattern.sub(instead, line)
    return line


def origin(node: NodePath) -> str:
    """What the node is in the torch.fx graph."""
    fx = node._node_meta.node
    if fx.op == "call_function":
        function = fx.target
        name = getattr(function, "__name__", type(function).__name__)
        return f"call_function {getattr(function, '__module__', None) or type(function).__module__}.{name}"
    if fx.op in ("placeholder", "output"):
        return str(fx.op)
    return f"{fx.op} {fx.target}"


def uncompiled(caught: list[warnings.WarningMessage]) -> dict[str, str]:
    found = {}
    for warning in caught:
        match = re.match(r"Compilation for (\S+) failed\..*?\*+\n(.*?)\*{20,}", str(warning.message), re.DOTALL)
        if match:
            found[match[1]] = first_line(match[2])
    return found


def tensor_leaves(graph: NodePath) -> dict[str, Any]:
    """In the order in which the tree shows them."""
    tensors = {}
    for _, node in graph._depth_first_items():
        if node.is_leaf and isinstance(node._value, NodeShape) and node._value._shape is not None:
            tensors[node._path] = {"shape": list(node._value._shape), "from": origin(node)}
    return tensors


@contextmanager
def names_of_operations() -> Iterator[None]:
    """Keeps torch.compile from renaming results after the local variables that they are assigned to."""
    original = getattr(TensorVariable, "set_name_hint", None)
    if original is None:
        yield
        return
    TensorVariable.set_name_hint = lambda self, name: None
    try:
        yield
    finally:
        TensorVariable.set_name_hint = original


def node_names(graph: PatchableGraph) -> list[str]:
    """Every torch.fx node by its path, in order: one that graphpatch lost to a clash of names is here too."""
    scopes = [meta for meta in graph._original_graph.values() if isinstance(meta, GraphMeta)]
    return [f"{scope.name}.{node.name}".lstrip(".") for scope in scopes for node in scope.graph.nodes]


def add_unassigned(name: str, assigned: PatchableGraph, tensors: dict[str, Any]) -> None:
    torch._dynamo.reset()
    module, args, kwargs = FIXTURES[name]()
    with names_of_operations():
        unassigned = PatchableGraph(module, *args, **kwargs)
    renamed = dict(zip(node_names(assigned), node_names(unassigned), strict=True))
    for path, node in tensors.items():
        base, bar, dig = path.partition("|")
        if node["from"].startswith("call_") and renamed[base] != base:
            node["unassigned"] = renamed[base] + bar + dig


def record(name: str) -> dict[str, Any]:
    torch._dynamo.reset()
    module, args, kwargs = FIXTURES[name]()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            graph = PatchableGraph(module, ExtractionOptions(warn_on_compilation_failure=True), *args, **kwargs)
        except Exception as error:  # an error of graphpatch's is a result as well
            return {"error": f"{type(error).__name__}: {first_line(str(error))}"}
    tensors = tensor_leaves(graph.graph)
    add_unassigned(name, graph, tensors)
    return {
        "tensors": tensors,
        "uncompiled": uncompiled(caught),
        "tree": repr(graph.graph).splitlines(),
    }


def as_text(value: Any, depth: int = 0, spread: int = 4) -> str:
    """JSON with one path or line of a tree per line."""
    if depth == spread or not value or not isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    indent = " " * (depth + 1)
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {as_text(item, depth + 1, spread)}" for key, item in value.items()]
        opening, closing = "{", "}"
    else:
        items = [as_text(item, depth + 1, spread) for item in value]
        opening, closing = "[", "]"
    return f"{opening}\n{indent}" + f",\n{indent}".join(items) + f"\n{indent[:-1]}{closing}"


def main() -> None:
    version = metadata.version("graphpatch")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=HERE / f"graphpatch-{version}.json")
    parser.add_argument("--only", nargs="+", default=list(FIXTURES), choices=list(FIXTURES), metavar="NAME")
    options = parser.parse_args()

    logging.disable(logging.WARNING)  # torch reports each graph break, which the result has under "uncompiled"
    result = {
        "versions": {
            "python": ".".join(map(str, sys.version_info[:2])),
            **{package: metadata.version(package) for package in ("graphpatch", "torch", "transformers", "numpy")},
        },
        "fixtures": {},
    }
    for name in options.only:
        result["fixtures"][name] = record(name)
        found = result["fixtures"][name]
        print(f"{name}: {found.get('error') or str(len(found['tensors'])) + ' tensors'}", flush=True)
    options.out.write_text(as_text(result) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
