"""Compares the NodePaths of libgraphpatch with those of the Python package graphpatch, for the models in fixtures.py.

    python agreement.py [--json OUT] [--markdown OUT]

Every tensor that graphpatch has a path for (reference/graphpatch-0.2.3.json, with its value in the -values file beside
it) is looked for in our graph of the same model. It agrees if the same path names a tensor of the same shape and value
in our graph. If not, the value is searched elsewhere in the scope, by aligning the operations of both graphs, and a
rule explains why the path differs. A tensor without a rule is "unexplained".

The models of transformers need the version that the reference was made with, in build/: `make agreement` puts it there.
"""

from __future__ import annotations

import argparse
import builtins
import json
import keyword
import os
import re
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

os.environ["HF_HUB_OFFLINE"] = "1"  # models come from their configs
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
REFERENCE = HERE.parent / "reference" / "graphpatch-0.2.3.json"
VALUES = HERE.parent / "reference" / "graphpatch-0.2.3-values.json"
TRANSFORMERS = ROOT / "build" / "transformers-4.45.2"

if not TRANSFORMERS.is_dir():
    sys.exit(f"error: {TRANSFORMERS} is missing; `make agreement` installs it")
sys.path[:0] = [str(HERE), str(ROOT / "bindings" / "python"), str(TRANSFORMERS)]

import torch
from torch.fx.graph import _Namespace

from fingerprint import fingerprint, same
from fixtures import FIXTURES
from libgraphpatch import PatchableGraph, ProbePatch

Dig = tuple[str, ...]

# --- the two graphs in one form ---


@dataclass
class Leaf:
    """A tensor with a path."""

    path: str
    shape: list[int]
    value: list[float]
    origin: str  # what the node stands for: "from" of graphpatch, kind and operator in our graph
    unassigned: str | None = None

    @property
    def chance(self) -> bool:
        """Whether the value cannot be compared, because it is random or uninitialized memory."""
        return re.search(r"dropout|empty", self.origin) is not None


@dataclass
class Item:
    """A node of a scope: an input, a parameter, an operation, an output, or a scope."""

    name: str
    kind: str
    leaves: dict[Dig, Leaf] = field(default_factory=dict)
    scope: Scope | None = None

    @property
    def result(self) -> dict[Dig, Leaf]:
        """The values of the node that the surrounding scope sees."""
        if self.scope is None:
            return self.leaves
        return next((item.leaves for item in reversed(self.scope.items) if item.kind == "output"), {})


@dataclass
class Scope:
    items: list[Item] = field(default_factory=list)
    module: str = ""  # the module's path below the enclosing called module, of our scopes only

    def item(self, name: str, kind: str) -> Item:
        # Not by the name: graphpatch may have a module named output.
        for item in self.items:
            if item.name == name and item.kind == kind:
                return item
        self.items.append(Item(name, kind, scope=Scope() if kind == "scope" else None))
        return self.items[-1]


def theirs(tensors: dict[str, Any], values: dict[str, list[float]]) -> Scope:
    root = Scope()
    kinds = {"placeholder": "input", "get_attr": "parameter", "output": "output"}
    for path, tensor in tensors.items():
        base, _, dig = path.partition("|")
        *around, name = base.split(".")
        scope = root
        for part in around:
            scope = scope.item(part, "scope").scope
        item = scope.item(name, kinds.get(tensor["from"].split()[0], "operation"))
        leaf = Leaf(path, tensor["shape"], values[path], tensor["from"], tensor.get("unassigned"))
        item.leaves[tuple(dig.split(".")) if dig else ()] = leaf
    return root


def escaped(name: str) -> str:
    return re.sub(r"[.|\[\]=\\]", r"\\\g<0>", name)


def tensors_in(value: Any, dig: Dig = ()) -> Iterator[tuple[Dig, list[int]]]:
    if isinstance(value, dict):
        ((kind, content),) = value.items()
        if kind == "tensor":
            yield dig, content["shape"]
        elif kind in ("tuple", "list"):
            for index, element in enumerate(content):
                yield from tensors_in(element, (*dig, f"sub_{index}"))
        elif kind == "dict":
            for key, element in content:
                yield from tensors_in(element, (*dig, key))


def saved(node: dict[str, Any], path: str = "") -> Scope:
    """A scope of a saved graph, without values yet."""
    scope = Scope(module=node.get("module_path", ""))
    for child in node["children"]:
        name, kind = child["name"], child["kind"]
        base = f"{path}.{escaped(name)}".lstrip(".")
        if kind == "scope":
            scope.items.append(Item(name, kind, scope=saved(child, base)))
            continue
        item = Item(name, {"op": "operation", "buffer": "parameter"}.get(kind, kind))
        for dig, shape in tensors_in(child.get("value")):
            full = base + ("|" + ".".join(map(escaped, dig)) if dig else "")
            item.leaves[dig] = Leaf(full, shape, [], f"{kind} {child.get('target', '')}".strip())
        scope.items.append(item)
    return scope


def all_leaves(scope: Scope) -> Iterator[Leaf]:
    for item in scope.items:
        if item.scope is not None:
            yield from all_leaves(item.scope)
        yield from item.leaves.values()


# --- looking for values ---


def equal(left: Leaf, right: Leaf) -> bool:
    return left.shape == right.shape and (same(left.value, right.value) or left.chance and right.chance)


def base_of(name: str) -> str:
    return re.sub(r"(?<=.)_\d+$", "", name)


def last_name(path: str) -> str:
    return re.split(r"[.|]", path.partition("|")[0])[-1]


def called(leaf: Leaf) -> str:
    """The function, method or operator behind an operation."""
    if leaf.origin.startswith("op "):
        return leaf.origin.split("::")[1].split(".")[0]
    return re.split(r"[ .]", leaf.origin)[-1]


def likeness(left: Item, right: Item) -> float:
    """How well two nodes fit together; 0 if their values differ."""
    ours, gp = right.result, left.result
    if (left.scope is None) != (right.scope is None) or not gp or gp.keys() != ours.keys():
        return 0
    if any(not equal(gp[dig], ours[dig]) for dig in gp):
        return 0
    if left.scope is not None:
        return 10 + 2 * (base_of(left.name) == base_of(right.name)) + (left.name == right.name)
    first, other = next(iter(gp.values())), next(iter(ours.values()))
    names = {left.name, last_name(first.unassigned or "")}
    return 10 + 3 * (called(first).strip("_") == called(other).strip("_")) + (right.name in names)


def align(left: list[Item], right: list[Item]) -> list[tuple[int, int]]:
    """Pairs of corresponding nodes that keep the order of both sides, with the largest sum of likeness."""
    best = [[0.0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i in reversed(range(len(left))):
        for j in reversed(range(len(right))):
            like = likeness(left[i], right[j])
            best[i][j] = max(best[i + 1][j], best[i][j + 1], like and like + best[i + 1][j + 1])
    pairs, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        like = likeness(left[i], right[j])
        if like and best[i][j] == like + best[i + 1][j + 1]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


# --- why a path is another one ---

# Title, what happens, and what to write instead.
REASONS = {
    "element": (
        "element of a result",
        "taking an element out of a tuple, list or dict (`a, b = x.chunk(2)`, `args[0]`, `self.attn(x)[0]`) is a node"
        " `getitem` in graphpatch; no operation runs there",
        "the element itself: `chunk|sub_0`, `attn.output|sub_0`",
    ),
    "index": (
        "indexing",
        "`x[...]` is one node `getitem` in graphpatch; the dispatcher runs `select`, `slice`, `unsqueeze`, `index`",
        "the last of these operations",
    ),
    "operator": (
        "operation by another name",
        "graphpatch names the function, method or operator of Python, libgraphpatch the dispatcher's operator",
        "the operator's name: `div` for `truediv`, `to` for `float`, `add_` for `iadd`",
    ),
    "several": (
        "one call, several operations",
        "a Python function of several operations (`F.normalize`, `3 / x`) is one node in graphpatch",
        "the last of the operations",
    ),
    "number": (
        "another number",
        "the same operation by the same name, but more nodes of that name come before it in one of the graphs, for one"
        " of the other reasons in this table or because graphpatch also names integer work on shapes",
        "the number that the tree shows",
    ),
    "setitem": (
        "assignment into a tensor",
        "`x[...] = v` is a node `setitem` with the whole tensor in graphpatch; the dispatcher runs `copy_` or `fill_`"
        " on a view of it",
        "the `copy_` or `fill_`, whose value is the part assigned to",
    ),
    "no-call": (
        "no operation runs",
        "`contiguous()` of a tensor that already is contiguous, and `x.data`, never reach the dispatcher",
        "the node whose value is handed on",
    ),
    "compiling": (
        "computed only for torch.compile",
        "the model asks whether it is being compiled and then takes another way; run as it is, it never computes this",
        "nothing: there is no such value",
    ),
    "plain-attribute": (
        "tensor in a plain attribute",
        "graphpatch makes a buffer of a tensor that is neither parameter nor buffer",
        "the operation that uses it",
    ),
    "flat-weights": (
        "parameters in a list",
        "graphpatch also shows an RNN's list `_flat_weights` of its own parameters",
        "the parameter",
    ),
    "outputs": (
        "outputs renumbered",
        "graphpatch drops plain values and `None` from a container that a module returns",
        "the element's own index",
    ),
    "shared": (
        "module under two attributes",
        "graphpatch names each call after the attribute used, as if there were two modules; torch knows a module by its"
        " first attribute",
        "the first attribute's name with the number of the call",
    ),
    "list-item": (
        "list item called again",
        "graphpatch appends the number of the call to `layers_0`; `torch.fx` counts `layers_0` itself on",
        "the name that the tree shows",
    ),
    "illegal": (
        "character that is none of an identifier",
        "graphpatch keeps it, so that the node is no attribute",
        "`_` in its place",
    ),
    "reserved-module": (
        "module with a reserved name",
        "graphpatch appends `_`; `code` and `graph` are reserved there too",
        "`sub_code` and `sub_shape` for `_code` and `_shape`, others as they are",
    ),
    "builtin-module": (
        "module named like a builtin",
        "graphpatch exempts modules from the rule that a builtin's name gets a number",
        "`print_1`",
    ),
    "taken": (
        "name that another node has",
        "where inputs, parameters, modules, operations, local variables or `output` would get the same name, graphpatch"
        " loses one of them, or gives the number to another one",
        "the name that the tree shows",
    ),
    "builtin-parameter": (
        "parameter named like a builtin",
        "graphpatch gives the names of parameters a number; in libgraphpatch parameters and inputs keep their names",
        "the parameter's own name",
    ),
}

INDEXING = {"select", "slice", "index", "unsqueeze", "alias"}
NO_CALL = {"contiguous", "_get_data_attr"}
# The dispatcher's names for functions, methods and operators of Python. These are fixed lists, so that a pair on
# neither list stays unexplained until somebody has looked at it.
OPERATORS = {
    **{"truediv": "div", "floordiv": "floor_divide", "mod": "remainder", "pos": "positive", "invert": "bitwise_not"},
    **{"and_": "__and__", "or_": "__or__", "xor": "__xor__", "lshift": "__lshift__", "rshift": "__rshift__"},
    **{"sub": "rsub", "gt": "lt"},  # with the tensor on the right
    **{"iadd": "add_", "isub": "sub_", "imul": "mul_", "itruediv": "div_"},
    **dict.fromkeys(["float", "double", "half", "bfloat16", "long", "int", "bool", "type", "cpu"], "to"),
    **{"cross_entropy": "cross_entropy_loss", "norm": "linalg_vector_norm"},
    "split": "split_with_sizes",  # with a list
    "relu": "relu_",  # with inplace=True
    "getattr": "mT numpy_T real",
}
SEVERAL = {"truediv": "mul", "normalize": "div", "tensor": "detach_"}


def is_builtin(name: str) -> bool:
    return keyword.iskeyword(name) or hasattr(builtins, name)


def module_reason(gp: Item, ours: Item, siblings: list[Item], module: Any) -> str:
    """Why a scope has another name. ``module`` is the one that both scopes are called from."""
    flat = ours.scope.module.replace(".", "_")
    if re.search(r"\W", gp.name) and re.sub(r"\W", "_", gp.name).removeprefix("sub_") == re.sub(r"\W", "_", flat):
        return "illegal"
    if gp.name == flat + "_":
        return "reserved-module"
    if gp.name == flat and ours.name == flat + "_1" and is_builtin(flat):
        return "builtin-module"
    if gp.name == flat and any(item is not ours and item.name == flat for item in siblings):
        return "taken"
    if re.search(r"_\d+$", flat) and re.fullmatch(re.escape(flat) + r"_\d+", gp.name):
        return "list-item"
    attributes = dict(module.named_modules(remove_duplicate=False))
    module = attributes.pop(ours.scope.module)
    if base_of(gp.name) in [path.replace(".", "_") for path, found in attributes.items() if found is module]:
        return "shared"
    return "unexplained"


@dataclass
class Found:
    """The result of the comparison for one tensor of graphpatch."""

    result: str  # same, unassigned, a reason, or unexplained
    ours: str | None = None  # our path of the same value
    misleading: bool = False  # whether graphpatch's path names a different tensor in our graph


@dataclass
class Twin:
    """Our node that corresponds to a node of graphpatch's."""

    item: Item
    extra: bool  # whether nodes directly before it exist in our graph only


@dataclass
class Around:
    """The scope that a node is in, on both sides."""

    ours: Scope
    module: Any
    prefix: str
    our_prefix: str
    renamed: str | None  # why the scope, or one around it, has another name


def twins(gp: Scope, ours: Scope) -> tuple[dict[int, Twin], dict[int, int]]:
    """For graphpatch's nodes, by id: our corresponding node, and the position in our scope up to there."""
    runs = ("operation", "scope")
    left = [item for item in gp.items if item.kind in runs]
    right = [item for item in ours.items if item.kind in runs]
    pairs = align(left, right)
    found = {}
    for n, (i, j) in enumerate(pairs):
        before = pairs[n - 1][1] if n else -1
        after = pairs[n + 1][1] if n + 1 < len(pairs) else len(right)
        name = called(next(iter(left[i].result.values())))
        if left[i].scope is None and name in SEVERAL:
            # If one call became several operations, take the last one that has the call's value.
            j = max(k for k in range(j, after) if k == j or likeness(left[i], right[k]))
        found[id(left[i])] = Twin(right[j], j - before > 1)
    done, position = {}, 0
    places = {id(item): index for index, item in enumerate(ours.items)}
    for item in gp.items:
        if id(item) in found:
            position = places[id(found[id(item)].item)]
        done[id(item)] = position
    return found, done


class Comparison:
    """Compares one fixture. ``found`` has the result for each of graphpatch's paths."""

    def __init__(self, gp: Scope, ours: Scope, graph: Any, module: Any) -> None:
        self.graph = graph
        self.by_path = {leaf.path: leaf for leaf in all_leaves(ours)}
        self.found: dict[str, Found] = {}
        self.scope(gp, Around(ours, module, "", "", None))

    def read(self, path: str | None) -> Leaf | None:
        """The leaf that a path of graphpatch names in our graph, if any."""
        try:
            return self.by_path.get(str(self.graph[path])) if path else None
        except KeyError:
            return None

    def scope(self, gp: Scope, around: Around) -> None:
        found, done = twins(gp, around.ours)
        for item in gp.items:
            twin = found.get(id(item))
            if item.scope is None:
                for dig, leaf in item.leaves.items():
                    self.found[leaf.path] = self.leaf(item, dig, leaf, twin, done[id(item)], around)
            elif twin is None:
                self.found.update((leaf.path, Found("unexplained")) for leaf in all_leaves(item.scope))
            else:
                reads = twin.item.name in (item.name, item.name.removesuffix("_0"))
                reason = None if reads else module_reason(item, twin.item, around.ours.items, around.module)
                inner = Around(
                    twin.item.scope,
                    dict(around.module.named_modules(remove_duplicate=False))[twin.item.scope.module],
                    f"{around.prefix}{item.name}.",
                    f"{around.our_prefix}{escaped(twin.item.name)}.",
                    around.renamed or reason,
                )
                self.scope(item.scope, inner)

    def leaf(self, item: Item, dig: Dig, leaf: Leaf, twin: Twin | None, done: int, around: Around) -> Found:
        def agrees(other: Leaf | None) -> bool:
            # For an operation, the nodes must correspond: another node may have an equal value by chance.
            runs = item.kind != "operation" or twin is not None and other in twin.item.leaves.values()
            return other is not None and equal(leaf, other) and runs

        as_is = self.read(leaf.path)
        if agrees(as_is):
            return Found("same", as_is.path)
        misleading = as_is is not None
        unassigned = self.read(leaf.unassigned)
        if agrees(unassigned):
            return Found("unassigned", unassigned.path, misleading)
        if around.renamed is not None:
            for path in filter(None, (leaf.path, leaf.unassigned)):
                other = self.read(around.our_prefix + path.removeprefix(around.prefix))
                if agrees(other):
                    return Found(around.renamed, other.path, misleading)
        visible = [
            (index, node, key, other)
            for index, node in enumerate(around.ours.items)
            for key, other in node.result.items()
            if equal(leaf, other)
        ]
        explain = {"parameter": self.parameter, "output": self.output, "operation": self.operation}.get(item.kind)
        other, reason = explain(item, dig, leaf, twin, done, around, visible) if explain else (None, "unexplained")
        return Found(reason, other and other.path, misleading)

    def parameter(self, item: Item, dig: Dig, leaf: Leaf, twin: Any, done: int, around: Around, visible: Any) -> Any:
        for _, node, key, other in visible:
            if node.kind == "parameter":
                if dig and not key:
                    return other, "flat-weights"
                if base_of(item.name) == node.name and is_builtin(node.name):
                    return other, "builtin-parameter"
                if base_of(item.name) == base_of(node.name):
                    return other, "taken"
        attribute = getattr(around.module, item.name, None)
        known = [*around.module.parameters(), *around.module.buffers()]
        if isinstance(attribute, torch.Tensor) and not any(attribute is tensor for tensor in known):
            return None, "plain-attribute"
        return None, "unexplained"

    def output(self, item: Item, dig: Dig, leaf: Leaf, twin: Any, done: int, around: Around, visible: Any) -> Any:
        for _, node, key, other in visible:
            if node.kind == "output" and key == dig:
                return other, "taken"
            if node.kind == "output" and len(key) == len(dig) == 1:
                if list(node.leaves).index(key) == int(dig[0].removeprefix("sub_")):
                    return other, "outputs"
        return None, "unexplained"

    def operation(
        self, item: Item, dig: Dig, leaf: Leaf, twin: Twin | None, done: int, around: Around, visible: Any
    ) -> Any:
        name = called(leaf)
        names = {item.name, base_of(item.name)}
        clash = any(node.name in names and node.kind not in ("operation", "scope") for node in around.ours.items)
        other = twin and twin.item.leaves[dig]
        if name in ("getitem", "__getitem__"):
            if other is not None and called(other) in INDEXING:
                return other, "index"
            elements = [(i, found) for i, node, key, found in visible if key or node.scope is not None]
            if not elements:
                return None, "unexplained"
            # Of several equal elements, take that of the node that ran last.
            return max(elements, key=lambda element: (element[0] <= done, -abs(element[0] - done)))[1], "element"
        if name == "setitem":
            return None, "setitem"
        if other is None:
            # Where graphpatch lost an input, the operation that replaced it stands in its place, out of order.
            alike = [found for _, node, _, found in visible if node.kind == "operation" and called(found) == name]
            if clash and alike:
                return alike[0], "taken"
            if name in NO_CALL and visible:
                return visible[0][3], "no-call"
            return None, "unexplained"
        if clash and called(other) == name:
            return other, "taken"
        if base_of(last_name(leaf.unassigned or leaf.path)) == base_of(twin.item.name):
            return other, "number"
        if called(other) in OPERATORS.get(name, "").split():
            return other, "operator"
        if twin.extra and called(other) == SEVERAL.get(name):
            return other, "several"
        return None, "unexplained"


# --- all fixtures ---


def record(name: str) -> tuple[Scope, PatchableGraph]:
    """Our graph of a fixture, with its values."""
    module, args, kwargs = FIXTURES[name]()
    pg = PatchableGraph(module, *args, **kwargs)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "graph.json"
        pg.save_graph(file)
        scope = saved(json.loads(file.read_text(encoding="utf-8"))["graphs"][0]["root"])
    leaves = list(all_leaves(scope))
    probes = {leaf.path: ProbePatch() for leaf in leaves}
    _, args, kwargs = FIXTURES[name]()  # a fixture may write to its inputs
    with torch.random.fork_rng(devices=[]), torch.no_grad(), pg.patch(probes):
        torch.manual_seed(0)
        pg(*args, **kwargs)
    for leaf in leaves:
        leaf.value = fingerprint(probes[leaf.path].activation)
    return scope, pg


def asked_by_transformers() -> bool:
    return sys._getframe(1).f_globals["__name__"].startswith("transformers.")


def compare(name: str, tensors: dict[str, Any], values: dict[str, list[float]]) -> tuple[dict[str, Found], Scope]:
    scope, pg = record(name)
    found = Comparison(theirs(tensors, values), scope, pg.graph, pg.module).found
    left = [path for path, what in found.items() if what.result == "unexplained"]
    if left:
        # Some values are computed for torch.compile only. They appear when the model is told that it is being compiled.
        with mock.patch("torch.compiler.is_compiling", asked_by_transformers):
            other, pg = record(name)
        compiling = Comparison(theirs(tensors, values), other, pg.graph, pg.module).found
        for path in left:
            if compiling[path].result != "unexplained":
                found[path] = Found("compiling", None, found[path].misleading)
    return found, scope


def only_ours(scope: Scope, used: set[str], opaque: set[str], module: str = "") -> Iterator[tuple[str, Leaf]]:
    """Our tensors that graphpatch has no path for, with their kinds. It could not look into ``opaque`` modules."""
    for item in scope.items:
        if item.scope is not None:
            yield from only_ours(item.scope, used, opaque, f"{module}.{item.scope.module}".lstrip("."))
        for leaf in item.leaves.values():
            if leaf.path not in used:
                yield ("opaque" if (module or "<root>") in opaque else item.kind), leaf


def misnamed(scope: Scope, path: str = "") -> Iterator[str]:
    """Operations and modules whose names are not those that torch.fx would give them.

    Inputs, parameters and ``output`` have their names before the first operation runs.
    """
    namespace = _Namespace()
    names = namespace._used_names
    fixed = {item.name for item in scope.items if item.kind not in ("operation", "scope")}
    names.update(fixed) if isinstance(names, set) else names.update(dict.fromkeys(fixed))
    for item in scope.items:
        if item.kind == "scope":
            yield from misnamed(item.scope, f"{path}{item.name}.")
            name = re.sub(r"\W", "_", item.scope.module)
            name = "sub" + name if name in ("_code", "_shape") else "sub_" + name if name[0].isdigit() else name
        elif item.kind == "operation" and item.leaves:
            name = called(next(iter(item.leaves.values())))
        else:
            continue
        if item.name != (wanted := namespace.create_name(name, None)):
            yield f"{path}{item.name} should be {wanted}"


def run() -> dict[str, Any]:
    reference = json.loads(REFERENCE.read_text(encoding="utf-8"))
    values = json.loads(VALUES.read_text(encoding="utf-8"))
    fixtures, wrong = {}, []
    for name in FIXTURES:
        theirs_ = reference["fixtures"][name]
        if "error" in theirs_:
            scope, _ = record(name)
            fixtures[name] = {"error": theirs_["error"], "extra": sum(1 for _ in all_leaves(scope))}
        else:
            found, scope = compare(name, theirs_["tensors"], values[name])
            used = {what.ours for what in found.values() if what.ours}
            extra = [(kind, leaf) for kind, leaf in only_ours(scope, used, set(theirs_["uncompiled"]))]
            fixtures[name] = {
                "found": {path: asdict(what) for path, what in found.items()},
                "extra": {leaf.path: kind for kind, leaf in extra},
            }
        wrong += [f"{name}: {text}" for text in misnamed(scope)]
    versions = {"graphpatch": reference["versions"], "libgraphpatch": {"torch": torch.__version__.partition("+")[0]}}
    return {"versions": versions, "fixtures": fixtures, "misnamed": wrong}


# --- the page ---


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"


def markdown(result: dict[str, Any]) -> str:
    fixtures = result["fixtures"]
    compared = {name: fixture["found"] for name, fixture in fixtures.items() if "found" in fixture}
    found = [(name, path, what) for name, paths in compared.items() for path, what in paths.items()]
    counts = Counter(what["result"] for _, _, what in found)
    misleading = Counter(what["result"] for _, _, what in found if what["misleading"])
    nowhere = sum(what["ours"] is None and what["result"] != "unexplained" for _, _, what in found)
    failed = {name: fixture for name, fixture in fixtures.items() if "error" in fixture}
    extra = Counter(kind for fixture in fixtures.values() if "found" in fixture for kind in fixture["extra"].values())
    same_, renamed, total = counts["same"], counts["unassigned"], len(found)
    elsewhere = total - same_ - renamed - nowhere - counts["unexplained"]
    other = [(path, what["ours"]) for _, path, what in found if what["result"] == "same" and path != what["ours"]]
    # Of these, either a scope has another name, or the result of an operation.
    first = sum(path.split(".")[-1] == ours.split(".")[-1] for path, ours in other)
    gp, ours = result["versions"]["graphpatch"], result["versions"]["libgraphpatch"]

    def paragraph(text: str) -> list[str]:
        return textwrap.wrap(
            text,
            120,
            break_long_words=False,
            break_on_hyphens=False,
            subsequent_indent="  " if text.startswith("- ") else "",
        ) + [""]

    lines = [
        "# How far paths agree with the Python package graphpatch",
        "",
        *paragraph("This page is made by `make agreement`; `make test-python` fails when it is stale."),
        *paragraph(
            f"{len(fixtures)} models (`tests/python/helpers/fixtures.py`) were given to graphpatch {gp['graphpatch']}"
            f" (torch {gp['torch']}, transformers {gp['transformers']}) and to libgraphpatch (torch {ours['torch']},"
            f" the same transformers). graphpatch made graphs of {len(compared)} of them, with {total} tensors."
            " The path of each"
            " was looked up in the graph of libgraphpatch. It agrees if it names the same input, parameter, operation"
            " or output there, with the same shape and the same value."
        ),
        f"| of graphpatch's {total} tensors | | |",
        "|---|---:|---:|",
        f"| have the same path | {same_} | {percent(same_, total)} |",
        f"| have it if results are not renamed after local variables | {renamed} | {percent(renamed, total)} |",
        f"| **together** | **{same_ + renamed}** | **{percent(same_ + renamed, total)}** |",
        f"| have another path, for a reason below | {elsewhere} | {percent(elsewhere, total)} |",
        f"| have no path, for a reason below | {nowhere} | {percent(nowhere, total)} |",
        f"| unexplained | {counts['unexplained']} | {percent(counts['unexplained'], total)} |",
        "",
        *paragraph(
            f"- {first} paths of the first row are read by the rule that `linear_0` is `linear`, the first call of a"
            f" module that is called more than once; {len(other) - first} by the names of local variables."
        )[:-1],
        *paragraph(
            "- The second row is a habit of `torch.compile` in torch 2.5: the result of `hidden = self.act(x)` is named"
            " after the local variable, `hidden`. graphpatch compiles the model, so it has that name; libgraphpatch"
            " names the operation, and knows the variable's name as an alias where the source says which it is. What"
            " the path would be without this habit was recorded too; the second row counts those without the alias."
        )[:-1],
        *paragraph(
            f"- {sum(misleading.values())} paths name a tensor in both packages, but not the same one. They count as"
            ' another path, and are in the column "misread" below: a script that uses one should be changed first.'
        ),
        "## Why a path is another one",
        "",
        "| reason | tensors | misread | what happens | write instead | example |",
        "|---|---:|---:|---|---|---|",
    ]
    rows = [("local variable", "unassigned", "see above", "the name of the operation")]
    rows += [(title, key, what, instead) for key, (title, what, instead) in REASONS.items()]
    for title, key, what, instead in sorted(rows, key=lambda row: -counts[row[1]]):
        if counts[key]:
            name, path, example = max(
                (item for item in found if item[2]["result"] == key), key=lambda item: bool(item[2]["misleading"])
            )
            shown = f"{name}: `{path}` → " + (f"`{example['ours']}`" if example["ours"] else "none")
            cells = [title, str(counts[key]), str(misleading[key] or "–"), what, instead, shown]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")

    names = {
        "opaque": "in a module that graphpatch could not look into",
        "operation": "results of operations",
        "parameter": "parameters and buffers",
        "input": "inputs",
        "output": "outputs",
    }
    lines += [
        "",
        "## What graphpatch has no path for",
        "",
        f"libgraphpatch has {sum(extra.values())} more tensors in the same {len(compared)} models:",
        "",
        "| tensors | |",
        "|---:|---|",
        *[f"| {count} | {names[kind]} |" for kind, count in extra.most_common()],
        "",
        f"and {sum(model['extra'] for model in failed.values())} in the {len(failed)} at which graphpatch fails:",
        "",
        "| model | tensors | graphpatch's error |",
        "|---|---:|---|",
        *[f"| {name} | {model['extra']} | `` {model['error']} `` |" for name, model in failed.items()],
        "",
        "## To reproduce",
        "",
        *paragraph(
            "`make agreement` compares with the committed record of graphpatch, `tests/python/reference`. To make that"
            " record again, run `record.py` and then `values.py` there, with a Python that has graphpatch 0.2.3. What"
            " became of each single path: `python tests/python/helpers/agreement.py --json OUT`."
        )[:-1],
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="OUT", help="what became of every path")
    parser.add_argument("--markdown", type=Path, metavar="OUT", help="the page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = run()
    text = markdown(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    if not options.json and not options.markdown:
        print(text, end="")


if __name__ == "__main__":
    main()
