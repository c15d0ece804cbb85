"""Turns the paths, patterns and patches that a block is given into single patches, each at one leaf."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch.nn import Module

from ._aliases import aliases, meant
from ._graphs import Graph
from ._header import GP_NODE_KIND_INPUT, GP_NODE_KIND_SCOPE, GP_VALUE_KIND_TENSOR, GP_VALUE_KIND_TUPLE
from ._library import check, lib, message
from ._modules import at
from ._quantized import WeightPatch, float_weight, is_quantized
from .errors import PathError
from .flow import SkipPatch, Skipping
from .graph import NodePath
from .patches import Patch

# Matches a text that contains a character of patterns, not preceded by a `\`.
_SPECIAL = re.compile(r"(?:[^\\]|\\.)*?[*?\[{]", re.DOTALL)

# The operation that has an inside, and what stands there.
_ATTENTION = "scaled_dot_product_attention"
_VALUES_INSIDE = ("query", "key", "value", "scores", "mask", "masked_scores", "probabilities", "output")


class Placed(NamedTuple):
    """One patch at one leaf."""

    path: str  # as the user knows it
    patch: Patch[Any]  # as the user gave it
    leaf: str  # where the library does it
    done: Patch[Any]  # what it does there


def placed(patches: Any, graph: Graph, root: Module | None) -> list[Placed]:
    """The patches of a block, in order. Raises KeyError for all paths that name no leaf in one error, and ValueError
    for what is no path or no patch."""
    pairs = list(_pairs(patches))
    wrong: list[str] = []
    found: list[Placed] = []
    weights = Weights(graph, root)
    for path, patch in pairs:
        try:
            if isinstance(patch, SkipPatch):
                found += [skipped(graph, root, scope, patch) for scope in scopes(graph, path)]
            else:
                found += [weights.placed(leaf, patch) for leaf in leaves(graph, path)]
        except PathError as why:
            wrong.append(str(why))
    plain = [place.leaf for place in found if not isinstance(place.done, Skipping)]
    status = graph.graphs.check(plain)
    if wrong:
        raise PathError("\n".join([*dict.fromkeys(wrong), *([message()] if status else [])]))
    if status and (meant_too := _near_aliases(graph, plain)):
        raise PathError(f"{message()}\n{meant_too}")
    check(status)
    return found


def _near_aliases(graph: Graph, paths: list[str]) -> str:
    """The names of local variables that paths without a node may have meant."""
    near: list[str] = []
    for path in paths:
        scope, dot, name = path.partition("|")[0].rpartition(".")
        found = difflib.get_close_matches(name, [*aliases(graph, scope)], n=3)
        near += [f"{scope}{dot}{alias}" for alias in found if known(graph, path) == path]
    return f"  by local variables: {', '.join(dict.fromkeys(near))}" if near else ""


class Weights:
    """Which of the leaves of a block are weights of quantized modules."""

    def __init__(self, graph: Graph, root: Module | None) -> None:
        self.graph, self.root = graph, root
        self.any: bool | None = None
        self.calls: dict[str, tuple[Placed, WeightPatch]] = {}

    def placed(self, leaf: str, patch: Patch[Any]) -> Placed:
        """The patch at this leaf. If the leaf is a weight of a quantized module, the patch is placed at the module's
        call. Raises ValueError if the weight cannot be patched."""
        scope, dot, name = leaf.rpartition(".")
        if name != "weight" or self.root is None or not self._are_there(self.root):
            return Placed(leaf, patch, leaf, patch)
        module = module_of(self.graph, self.root, scope) if dot else self.root
        if module is None or not is_quantized(module):
            return Placed(leaf, patch, leaf, patch)
        known = bool(dot) and float_weight(module) is not None
        if not known and patch.on == "value" and not patch._changes():
            return Placed(leaf, patch, leaf, patch)  # a patch that only looks gets the stored value
        if not known or patch.on == "grad":
            raise ValueError(
                f"{leaf}: this weight of a {type(module).__name__} is quantized, and "
                + ("has no gradient" if patch.on == "grad" else "its value cannot be patched there")
                + "; patch what the module returns"
            )
        if scope not in self.calls:
            joined = WeightPatch(patches=[])
            self.calls[scope] = skipped(self.graph, self.root, self.graph.find("", scope), joined), joined
        call, joined = self.calls[scope]
        joined.patches.append(patch)
        patch._at_constant()
        return Placed(leaf, patch, call.leaf, call.done)

    def _are_there(self, root: Module) -> bool:
        if self.any is None:
            self.any = any(is_quantized(module) for module in root.modules())
        return self.any


def is_pattern(graph: Graph, path: str) -> bool:
    """Whether a text is a pattern, and not the path of a node whose name contains such characters."""
    if _SPECIAL.match(path) is None:
        return False
    try:
        graph.node(path)
    except (PathError, ValueError):
        return True
    return False


def known(graph: Graph, path: str) -> str:
    """The path, or the one that it means where it has the name of a local variable."""
    try:
        graph.node(path)
    except PathError:
        return meant(graph, path) or path
    return path


def leaves(graph: Graph, path: str) -> list[str]:
    """The paths of the tensors that match a pattern, at least one. A well-formed path is returned as it is."""
    if not is_pattern(graph, path):
        if lib.gp_path_parse(path.encode(), None):
            raise PathError(message())
        return [known(graph, path)]
    found = _search(graph, path, "...") or _inside(graph, path)
    if not found:
        raise _means_none(graph, path, "tensor", "...")
    return found


def scopes(graph: Graph, path: str) -> list[str]:
    """The calls of modules that a path or a pattern names, by their scope or by its output."""
    path = re.sub(r"\.output$", "", path)
    if not is_pattern(graph, path):
        node = graph.node(path)  # raises
        if node.kind != GP_NODE_KIND_SCOPE or not path:
            raise PathError(f"{path or '<root>'}: a SkipPatch stands at the call of a module inside the root's")
        return [graph.find("", path)]
    found = [path for path in _search(graph, path, None) if graph.node(path).kind == GP_NODE_KIND_SCOPE]
    if not found:
        raise _means_none(graph, path, "call of a module", None)
    return found


def _search(graph: Graph, pattern: str, shape: str | None) -> list[str]:
    try:
        return graph.search(pattern, shape=shape)
    except ValueError as why:  # a text that is not a pattern names nothing
        raise PathError(str(why)) from None


def _inside(graph: Graph, pattern: str) -> list[str]:
    """The tensors that a pattern means though the graph has no node of it that is a value: those inside of attentions
    whose inside was not shown so far, and results of attentions whose inside was shown."""
    operation, dot, last = pattern.rpartition(".")
    if dot and last in _VALUES_INSIDE and _ATTENTION in operation.rpartition(".")[2]:
        return [f"{path}.{last}" for path in _search(graph, operation, "...")]
    found = _search(graph, pattern, None)
    return [path for path in found if path.rpartition(".")[2].startswith(_ATTENTION)]


def _means_none(graph: Graph, pattern: str, what: str, shape: str | None) -> PathError:
    meant = [f"{pattern}{end}" for end in (".output", "|*", ".output|*") if shape] + [f"**.{pattern}"]
    hint = next((f"; {longer!r} does" for longer in meant if graph.search(longer, shape=shape)), "")
    return PathError(f"{pattern!r} matches no {what} of the graph{hint or '; `pg.graph` shows the names'}")


def skipped(graph: Graph, root: Module | None, scope: str, patch: SkipPatch) -> Placed:
    """Places a SkipPatch at the call of a module. Raises ValueError if that call cannot be skipped."""
    module = module_of(graph, root, scope)
    children = graph.children(scope).values()
    inputs = [path for path in children if graph.node(path).kind == GP_NODE_KIND_INPUT]
    leaf = next(_leaves(graph, inputs), None)
    if module is None or leaf is None:
        why = "its module is not found below the root's" if module is None else "it has no inputs"
        raise ValueError(f"{scope}: this call cannot be skipped: {why}")
    output = graph.node(f"{scope}.output")
    length = output.children if output.value == GP_VALUE_KIND_TUPLE else None
    return Placed(scope, patch, leaf, Skipping(patch, module, length))


def _leaves(graph: Graph, paths: list[str]) -> Iterator[str]:
    """Leaves at and below the paths: tensors first."""
    below = [path for path in paths if not graph.node(path).children]
    for path in paths:
        below += _leaves(graph, [*graph.children(path).values()])
    yield from sorted(below, key=lambda path: graph.node(path).value != GP_VALUE_KIND_TENSOR)


def module_of(graph: Graph, root: Module | None, scope: str) -> Module | None:
    """The module that is called at a scope. None if it is not an attribute of the root's module or of one below it."""
    node: dict[str, Any] | None = graph.whole()
    around = [] if root is None else [root]
    for name in scope.split("."):
        node = next((child for child in (node or {}).get("children", []) if child["name"] == name), None)
        if node is None:
            return None
        path = node.get("module_path", "")
        module = next((found for above in reversed(around) if (found := at(above, path)) is not None), None)
        if module is None or not path:
            return None
        around.append(module)
    return around[-1]


def _pairs(patches: Any) -> Iterator[tuple[str, Patch[Any]]]:
    """Paths and patches, one by one."""
    if not isinstance(patches, Mapping):
        raise ValueError(f"patches are a mapping from paths to patches, not a {type(patches).__name__}")
    for path, given in patches.items():
        if not isinstance(path, (str, NodePath)):
            raise ValueError(f"a path is a str or a node of the graph, not a {type(path).__name__}: {path!r}")
        for patch in given if isinstance(given, (list, tuple)) else [given]:
            if not isinstance(patch, Patch):
                raise ValueError(f"{path}: a patch is a libgraphpatch.Patch, such as ZeroPatch(), not {patch!r}")
            yield str(path), patch
