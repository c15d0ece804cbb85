"""Patches inside compiled code at its own speed: a captured graph is compiled once more, with taps where patches stand.

The names of the graph's values are found out once, by running it operation by operation without side effects. Until the
code with taps exists, and where it would give wrong results, patched calls are run operation by operation as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch.nn import Module, Parameter

from . import _marks
from ._dispatch_key import hidden
from ._graphs import Graphs
from ._handle import Handle
from ._header import GP_WANTS_PLACE_SHIFT
from ._library import check, lib, made, text
from ._modules import class_name, is_handlers, note
from ._replay import Replay
from ._root import Root
from ._run import open_run
from ._side_effects import Before
from ._tapped_graph import Layout, with_taps
from ._thread import Frame, thread
from ._watched import watched

Compiled = Callable[..., Any]

# A graph is compiled again with taps when running it operation by operation has taken as long as compiling it did,
# times this factor.
PATIENCE = 1.0

# If the graph has to be compiled with taps as often as this, it gets taps at all values, not only at those wanted.
_ENOUGH = 3

# For how many kinds of inputs, and for how many plans, compiled code and names are kept.
_KINDS, _PLANS = 8, 64

# Ends a sentence about code of which the values themselves are asked for.
ONE_BY_ONE = "its compiled code cannot have taps, so that the values are those of its operations one by one"

# Stands for the values that are wanted under a plan that was not met yet.
_UNKNOWN: frozenset[str] = frozenset(("?",))


class Tapped(NamedTuple):
    """A graph compiled with taps."""

    function: Compiled
    paths: frozenset[str]
    # Whether its results were bit for bit those of the code without taps; empty until it has run.
    exact: list[bool]

    def may_look(self) -> bool:
        """Whether it may be used for patches that only look, which must not change a single bit."""
        return not self.exact or self.exact[0]


class Names(NamedTuple):
    """The names of the values of a graph, below the scope in which it is called."""

    # The values that can be tapped.
    sites: dict[str, fx.Node]
    # The names of all nodes.
    known: frozenset[str]
    # The names directly in that scope, in order, as the library takes them.
    scope: bytes

    @property
    def operations(self) -> set[str]:
        """The names of operations that have an inside."""
        return {path for path in self.known if path.rpartition(".")[2].startswith("scaled_dot_product_attention")}


class Taps:
    """The taps of one captured graph.

    Args:
        marked: The graph with marks.
        numbers: The names of its inputs that are numbers to the program.
        compile: The program's compiler, of a graph and its inputs.
        bare: The code without taps.
        cost: How many seconds it took to compile that code.
    """

    def __init__(
        self,
        marked: fx.GraphModule,
        numbers: set[str],
        layout: Layout,
        compile: Callable[..., Compiled],
        bare: Compiled,
        cost: float,
    ) -> None:
        self._marked, self._layout, self._compile, self._cost = marked, layout, compile, cost
        self._inputs = [node for node in marked.graph.nodes if node.op == "placeholder"]
        self._numbers = [at for at, node in enumerate(self._inputs) if node.name in numbers]
        self._bare = Tapped(bare, frozenset(), [True])
        # How many seconds runs operation by operation have taken since.
        self.spent = 0.0
        self._names: Names | None = None
        self._failed = False
        self._made: dict[Any, Tapped] = {}
        self._times = 0
        # The wanted values, by plan, place among its patches and kind of inputs.
        self._wanted: dict[Any, frozenset[str] | None] = {}

    def fitting(self, frame: Frame, replay: Callable[..., Any], args: tuple[Any, ...], changes: bool) -> Tapped | None:
        """The code that applies the patches of the run inside ``frame``; None where the graph has to be replayed.

        Args:
            replay: Runs the graph operation by operation, with an object of the class that it is given.
            changes: Whether a patch may change a value, or all of them only look.
        """
        root, place = frame.root, frame.wants >> GP_WANTS_PLACE_SHIFT
        if (
            self._failed
            or not place
            or torch.is_grad_enabled()
            or root.held(frame.plan).functions
            or frame.by_parameter
            or watched.several
        ):
            return None
        kind = None
        if self._layout.dynamic or self._numbers:
            kind = _kind(args), *[float(args[at]) for at in self._numbers]
        key = frame.plan, place
        try:
            wanted = self._wanted.get(key, _UNKNOWN)
            if wanted is _UNKNOWN:
                if len(self._wanted) >= _PLANS:
                    self._wanted = {}
                wanted = self._wanted[key] = self._find(frame, replay, args)
            tapped = None if wanted is None else self._with(wanted, kind, args)
        except Exception as error:
            if is_handlers(error):
                raise
            self._failed = True
            what = f"{class_name(frame.module)}: its compiled code cannot have taps, and patches in it run operation by"
            note(root.session, f"{what} operation: {type(error).__name__}: {error}".splitlines()[0])
            return None
        only_looks = not changes and thread.only_taps is None
        if tapped is None or (only_looks and not tapped.may_look()):
            return None
        return tapped if self._fits() else None

    def _fits(self) -> bool:
        """Whether the values would get the same names in this run as before. If so, these names are then in use."""
        assert self._names is not None
        fits = ctypes.c_bool()
        check(lib.gp_run_computes(self._names.scope, ctypes.byref(fits)))
        return fits.value

    def _find(self, frame: Frame, replay: Callable[..., Any], args: tuple[Any, ...]) -> frozenset[str] | None:
        """The paths that the patches name in the graph; None if one cannot be tapped, or if patterns name them. Where
        only the values of the compiled code are asked for, paths that cannot be tapped are left out."""
        names = self._names
        if names is None:
            names = self._names = learn(frame.module, self._marked, self._layout, replay, args)
        any_value = ctypes.c_bool()
        asked = text(lib.gp_run_patched, ctypes.byref(any_value)).splitlines()
        if any_value.value:
            return None
        # The inside of an operation is computed beside it, where the operation itself is called.
        inside = any(path.partition("|")[0].rpartition(".")[0] in names.operations for path in asked)
        if inside and thread.only_taps is None:
            return None
        wanted = frozenset(path for path in asked if path.partition("|")[0] in names.known)
        if thread.only_taps is not None:
            return wanted & names.sites.keys()
        return wanted if wanted <= names.sites.keys() else None

    def _with(self, wanted: frozenset[str], kind: Any, args: tuple[Any, ...]) -> Tapped | None:
        """The code with taps at these values, if it exists or if it is time to compile it."""
        if not wanted:
            return self._bare
        made = self._made.get(kind)
        if made is not None and wanted <= made.paths:
            return made
        early = thread.only_taps is None and self.spent < PATIENCE * self._cost
        if early or (made is None and len(self._made) >= _KINDS):
            return None
        assert self._names is not None
        self._times += 1
        paths = wanted.union(made.paths if made else ())
        if self._times >= _ENOUGH:
            paths = frozenset(self._names.sites)
        made = self._made[kind] = Tapped(self._compiled(paths, args), paths, [])
        self.spent = 0.0
        return made

    def _compiled(self, paths: Iterable[str], args: tuple[Any, ...]) -> Compiled:
        assert self._names is not None
        numbers = {node: arg for node, arg in zip(self._inputs, args, strict=True) if not isinstance(arg, Tensor)}
        numbers.update((self._inputs[at], args[at].item()) for at in self._numbers)
        sites = {self._names.sites[path]: path for path in sorted(paths)}
        graph = with_taps(self._layout, self._marked.graph, sites, numbers)
        # Only one thread compiles at a time, by the lock of torch.compile itself.
        one_by_one = getattr(sys.modules["torch._dynamo.convert_frame"], "compile_lock", contextlib.nullcontext())
        with one_by_one, hidden(True), torch.random.fork_rng(devices=[]):
            return self._compile(fx.GraphModule(self._marked, graph), list(args))

    def run(self, tapped: Tapped, args: tuple[Any, ...], changes: bool) -> Any:
        """The result of the call. The first time that all patches only look, the result without taps is returned, and
        compared with the one of the code with taps."""
        if changes or tapped.exact or thread.only_taps is not None:
            return tapped.function(*args)
        before = Before(arg for arg in args if isinstance(arg, Tensor))
        result = _copied(tapped.function(*args))
        before.restore()
        bare = self._bare.function(*args)
        tapped.exact.append(_are_same(result, bare))
        return bare


class _Learning(Replay):
    """A run of the graph, operation by operation, that is recorded in order to learn the names of its values.

    Attributes:
        paths: For each node, the path that appeared while it ran. For the mark that begins a call, the call's output.
    """

    def __init__(self, captured: fx.GraphModule, numbers: set[str], modules: _marks.Modules, args: Any) -> None:
        super().__init__(captured, numbers, modules, args)
        self.paths: dict[fx.Node, list[str]] = {}
        self.all: list[str] = []
        self._named()

    def _named(self) -> list[str]:
        named = text(lib.gp_run_named).splitlines()
        self.all += named
        return named

    def _until_mark(self) -> Any:
        self._named()
        return super()._until_mark()

    def _call(self, begin: fx.Node) -> None:
        super()._call(begin)
        self.paths[begin] = self._named()[-1:]

    def _run(self, node: fx.Node) -> Any:
        value = super()._run(node)
        self.paths[node] = self._named()
        return value


def learn(
    module: Module, marked: fx.GraphModule, layout: Layout, replay: Callable[..., Any], args: tuple[Any, ...]
) -> Names:
    """Finds out the names of the graph's values, in a call of ``module`` that consists of this graph only. Afterwards
    the arguments and the random numbers are as before."""
    session = Handle(lib.gp_session_close, made(lib.gp_session_open))
    check(lib.gp_session_record(session, True))
    learned: list[_Learning] = []

    def learning(*given: Any) -> _Learning:
        learned.append(_Learning(*given))
        return learned[0]

    frame, caller, error, held = thread.frame, thread.caller, thread.error, thread.held
    before = Before(arg for arg in args if isinstance(arg, Tensor))
    thread.frame = None
    try:
        root = Root(module, "learned", session)
        open_run(root, module, lambda *_: replay(learning), lambda: None)
    finally:
        thread.frame, thread.caller, thread.error, thread.held = frame, caller, error, held
        before.restore()
    nodes = Graphs(made(lib.gp_session_graphs, session)).graph(0).search("**")
    found = {path: _site(layout, node) for node, paths in learned[0].paths.items() for path in paths if len(paths) == 1}
    sites = {path: node for path, node in found.items() if node is not None}
    scope = dict.fromkeys(path.partition(".")[0] for path in learned[0].all)
    known = frozenset(path.partition("|")[0] for path in (*nodes, *learned[0].all))
    return Names(sites, known, "\n".join(scope).encode())


def _site(layout: Layout, node: fx.Node) -> fx.Node | None:
    """The node at which a value is tapped; None if it cannot be."""
    if _marks.is_mark(node):
        return layout.output(node)
    return node if node in layout.in_place else None


def _kind(args: Sequence[Any]) -> tuple[Any, ...]:
    """The kind of these inputs. Code that was compiled for inputs of one kind fits all inputs of that kind."""
    return tuple(
        (arg.shape, arg.stride()) if isinstance(arg, Tensor) else arg for arg in args if type(arg) is not Parameter
    )


def _copied(result: Any) -> list[Any]:
    return [value.clone() if isinstance(value, Tensor) else value for value in result]


def _are_same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether two results are the same bit for bit."""
    return len(one) == len(other) and all(map(_is_same, one, other))


def _is_same(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return bool(one == other)
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    bits = [value.detach().contiguous().reshape(-1).view(torch.uint8) for value in (one, other)]
    return bool(torch.equal(*bits))
