"""PatchableGraph: a module whose every value can be seen and patched."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import inspect
import threading
import weakref
from dataclasses import dataclass
from typing import Any, Callable, Iterator, List, Mapping, Optional, Sequence, Tuple, Type, Union

import torch
from torch.nn import Module

from . import _calls, _checkpoint, _source
from ._abi import PathError, check, encoded, lib, made, message, text, texts
from .graph import Graphs, NodePath, is_number
from .patches import Function, Patch

Path = Union[str, NodePath]


@dataclass
class ExtractionOptions:
    """Takes the options of the Python package graphpatch and ignores them: nothing is compiled here, so there is
    nothing to choose. A script that passes them keeps working."""

    def __init__(self, **_options: Any) -> None:
        pass


class PatchableGraph:
    """A module whose every intermediate tensor can be seen and patched by name.

    The module is run once with the example inputs to record its graph; it is neither copied, rewritten nor compiled,
    and any control flow works. What is asked of a PatchableGraph that is not its own (``generate()``, ``state_dict()``,
    ``config``) is asked of the module; patches hold for calls of the module itself too.

    >>> pg = PatchableGraph(model, **inputs)
    >>> with pg.patch({"layers_2.mlp.output": [probe := ProbePatch(), ZeroPatch()]}):
    ...     patched = pg(**inputs)
    >>> probe.activation

    Any number of threads may use one; patches hold on all of them. What a module does on threads that it starts itself
    is no part of its run. A module may have several: each has its own graph and patches, and a call of the module
    itself is one of that whose block was entered last.

    Args:
        module: Any ``torch.nn.Module``.
        example_args, example_kwargs: Inputs for it. The run with them is under ``no_grad``, and buffers and random
            numbers are afterwards what they were.

    Raises:
        ValueError: ``module`` is no module, or a compiled one, whose inside cannot be seen.
        AdapterError: libgraphpatch does not work with this libtorch.
    """

    def __init__(self, module: Module, *example_args: Any, **example_kwargs: Any) -> None:
        if not isinstance(module, Module):
            raise ValueError(f"a PatchableGraph wraps a torch.nn.Module, not a {type(module).__name__}")
        why = _calls.compiled(module)
        if why:
            raise ValueError(f"{type(module).__name__}: its inside is not visible: {why}")
        if _calls.is_script(module):
            raise ValueError(f"{type(module).__name__}: a TorchScript module cannot be the outermost one: put it into a"
                             " torch.nn.Module that calls it; its inside will be visible there")
        check(lib.gp_torch_load())
        session = made(lib.gp_session_open)
        root = _calls.Root(module, f"{type(module).__qualname__}.forward", session)
        vars(self).update(_module=module, _session=session, _root=root, _wanted=0, _recordings=0, _skips=0,
                          _lock=threading.RLock(), _graphs=None)
        weakref.finalize(self, _close, session, root)
        _source.install(session)
        _checkpoint.install()
        if example_args and isinstance(example_args[0], ExtractionOptions):
            example_args = example_args[1:]
        with torch.no_grad(), _unchanged(module):
            self.record(*example_args, **example_kwargs)

    # --- the module ---

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the module, under the patches that hold."""
        thread = _calls.thread
        outer, thread.asked = thread.asked, self._root
        try:
            return self._module(*args, **kwargs)
        finally:
            thread.asked = outer

    @property  # type: ignore[misc]
    def __class__(self) -> Type[Any]:
        """The module's, so that ``isinstance`` sees a module; ``type()`` tells the difference."""
        return type(self._module)

    def __getattr__(self, name: str) -> Any:
        if name == "_module":
            raise AttributeError(name)
        value = getattr(self._module, name)
        if inspect.ismethod(value) and value.__self__ is self._module:
            return self._answering_with_self(value)
        return value

    def _answering_with_self(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """A method of the module's that returns us where it returns the module (``to``, ``eval``)."""

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            with _calls.asking(self._root):
                result = method(*args, **kwargs)
            return self if result is self._module else result

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self) or hasattr(type(self), name):
            object.__setattr__(self, name, value)
        else:
            setattr(self._module, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._module, name)

    def __dir__(self) -> List[str]:
        return sorted({*dir(type(self)), *dir(self._module)})

    def __len__(self) -> int:
        return len(self._module)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: Any) -> Any:
        return self._module[index]  # type: ignore[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._module)  # type: ignore[call-overload]

    def __repr__(self) -> str:
        return f"PatchableGraph(\n{self._module!r}\n)"

    def __reduce__(self) -> Any:
        raise TypeError(
            "a PatchableGraph cannot be pickled or copied, as its patches belong to this process: save the module"
            " (`pg.module`) and, with `pg.save_graph(file)`, its graph"
        )

    def __deepcopy__(self, memo: Any) -> Any:
        return self.__reduce__()

    @property
    def module(self) -> Module:
        """The module itself."""
        return self._module

    # --- the graph ---

    # No annotation: IPython would complete by the type instead of asking the object.
    @property
    def graph(self):  # type: ignore[no-untyped-def]
        """The recorded graph as a :class:`NodePath`: nodes as attributes with tab completion, the tree as ``repr``, and
        for each node ``_code`` and ``_shape``."""
        with self._lock:
            if self._graphs is not None:
                return self._graphs
            graph = Graphs(made(lib.gp_session_graphs, self._session)).root()
            if not self._recordings:
                vars(self)["_graphs"] = graph
            return graph

    def record(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the module and records the run into the graph: new nodes are added, and sizes that differ from earlier
        runs become ranges. Returns what the module returns."""
        with self.recording():
            return self(*args, **kwargs)

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Records all runs inside the block into the graph, ``generate()`` with its many steps, say."""
        with self._wants():
            self._add_recording(1)
            try:
                yield
            finally:
                self._add_recording(-1)

    def _add_recording(self, change: int) -> None:
        with self._lock:
            vars(self)["_recordings"] += change
            vars(self)["_graphs"] = None
            check(lib.gp_session_record(self._session, self._recordings > 0))

    def _add_skip(self, change: int) -> None:
        with self._lock:
            vars(self)["_skips"] += change
            check(lib.gp_session_on_error(self._session, self._skips > 0))

    def save_graph(self, file: Any) -> None:
        """Saves the graph as JSON, for ``graphpatch show`` and :func:`libgraphpatch.load_graph`."""
        self.graph._graphs.save(file)

    @property
    def notes(self) -> List[str]:
        """What a person should know of the runs so far: what could not be seen, and why."""
        return text(lib.gp_session_notes, self._session).splitlines()

    # --- patches ---

    def patch(self, patches: Mapping[Path, Union[Patch[Any], Sequence[Patch[Any]]]], *, on_error: str = "raise",
              runs: Optional[str] = None, this_thread: bool = False) -> "Patched":
        """A context manager inside which the patches hold, for all runs of the module that begin in it.

        Patches at one node act in the order given; those of an inner block come after those of the outer one.

        Args:
            patches: Paths, as text (``"linear_1.output|sub_0"``) or nodes of :attr:`graph`, and what is done there.
            on_error: What a patch that cannot be applied in a run does: ``"raise"`` an error, or ``"skip"`` it. Holds
                for all patches of this PatchableGraph while the block lasts.
            runs: Hold for some runs only, counted from 0 on inside the block: ``"3"``, ``"2.."``, ``"0..4"``
                (without 4).
            this_thread: Hold for runs on this thread only.

        Raises:
            KeyError: Paths that name no leaf of the graph, all of them, with their nearest completions.
            ValueError: What is no path, no patch, or not a mapping.
        """
        return Patched(self, patches, on_error, runs, this_thread)

    @contextlib.contextmanager
    def _wants(self) -> Iterator[None]:
        """Runs of the module are of interest inside the block."""
        with self._lock:
            vars(self)["_wanted"] += 1
            _calls.watch(self._root)
        try:
            yield
        finally:
            with self._lock:
                vars(self)["_wanted"] -= 1
                if not self._wanted:
                    _calls.unwatch(self._root)


class Patched:
    """The block of :meth:`PatchableGraph.patch`."""

    def __init__(self, pg: PatchableGraph, patches: Any, on_error: str, runs: Optional[str], this_thread: bool) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}")
        self._pg, self._on_error, self._runs, self._this_thread = pg, on_error, runs, this_thread
        self._patches = _pairs(patches)
        self._open: List[contextlib.ExitStack] = []
        _check_paths(pg, [path for path, _ in self._patches])

    def __enter__(self) -> None:
        pg, held, registered = self._pg, [], []
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as specs:
            undo.enter_context(pg._wants())
            undo.callback(pg._root.retire, held)
            made_specs = [self._spec(path, patch, specs, held) for path, patch in self._patches]
            # A run begins with all of them or with none.
            with pg._root.beginning:
                if self._on_error == "skip":
                    pg._add_skip(1)
                    undo.callback(pg._add_skip, -1)
                undo.callback(self._remove, registered)
                for spec in made_specs:
                    if self._runs is not None:
                        check(lib.gp_spec_runs(spec, _counted_from(pg._root.begun, self._runs).encode()))
                    registered.append(_register(pg._session, spec))
            self._open.append(undo.pop_all())

    def _spec(self, path: str, patch: Patch[Any], specs: contextlib.ExitStack, held: List[Any]) -> int:
        spec = made(lib.gp_spec_new, path.encode())
        specs.callback(lib.gp_spec_free, spec)
        living = patch._describe(spec)
        held.append(living)
        if isinstance(living, Function) and is_number(self._pg.graph[path]._value()):
            living.take_number()
        check(lib.gp_spec_runs(spec, encoded(self._runs) or b".."))
        check(lib.gp_spec_this_thread(spec, self._this_thread))
        return spec

    def _remove(self, registered: List[int]) -> None:
        with self._pg._root.beginning:
            for number in reversed(registered):
                lib.gp_patch_remove(self._pg._session, number)

    def __exit__(self, *_: Any) -> None:
        self._open.pop().close()


def _register(session: int, spec: int) -> int:
    number = ctypes.c_uint64()
    check(lib.gp_patch_register(session, spec, ctypes.byref(number)))
    return number.value


def _counted_from(first: int, runs: str) -> str:
    """``runs`` of a block as the session's, which counts all."""
    start, dots, end = runs.partition("..")
    if not dots:
        return str(first + int(start))
    return f"{first + int(start or 0)}..{first + int(end) if end.strip() else ''}"


def _pairs(patches: Any) -> List[Tuple[str, Patch[Any]]]:
    """Paths and patches, one by one."""
    if not isinstance(patches, Mapping):
        raise ValueError(f"patches are a mapping from paths to patches, not a {type(patches).__name__}")
    pairs = []
    for path, given in patches.items():
        if not isinstance(path, (str, NodePath)):
            raise ValueError(f"a path is a str or a node of the graph, not a {type(path).__name__}: {path!r}")
        for patch in given if isinstance(given, (list, tuple)) else [given]:
            if not isinstance(patch, Patch):
                raise ValueError(f"{path}: a patch is a libgraphpatch.Patch, such as ZeroPatch(), not {patch!r}")
            pairs.append((str(path), patch))
    return pairs


def _check_paths(pg: PatchableGraph, paths: List[str]) -> None:
    """Refuses all bad paths in one error."""
    malformed = []
    for path in paths:
        if lib.gp_path_parse(path.encode(), None):
            malformed.append((path, message()))
    bad = [path for path, _ in malformed]
    rest = [path for path in paths if path not in bad]
    graphs = pg.graph._graphs
    status = lib.gp_graphs_check(graphs.handle, texts(rest), len(rest))
    if malformed:  # text that is no path names no leaf either
        raise PathError("\n".join([*(why for _, why in malformed), *([message()] if status else [])]))
    check(status)


def _close(session: int, root: "_calls.Root") -> None:
    _calls.unwatch(root)
    lib.gp_session_close(session)


@contextlib.contextmanager
def _unchanged(module: Module) -> Iterator[None]:
    """Buffers and random numbers are behind the block what they were before it."""
    buffers = [(below._buffers, name, buffer, buffer.clone())
               for below in module.modules() for name, buffer in _plain_buffers(below)]
    devices = {tensor.device for tensor in [*module.parameters(), *module.buffers()] if tensor.is_cuda}
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            for holder, name, buffer, copy in buffers:
                if not torch.equal(buffer, copy):  # not all of libtorch's writes count as a new version
                    buffer.copy_(copy)
                if holder.get(name, buffer) is not buffer:  # the module put another one there
                    holder[name] = buffer


def _plain_buffers(module: Module) -> List[Tuple[str, torch.Tensor]]:
    if _calls.is_script(module):
        return []
    buffers = [(name, buffer) for name, buffer in module._buffers.items() if buffer is not None]
    return [(name, buffer) for name, buffer in buffers if not buffer.is_inference() and not buffer.is_meta]
