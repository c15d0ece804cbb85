"""PatchableGraph: a module whose every value can be seen and patched."""

from __future__ import annotations

import copy
import functools
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

import torch
from torch.nn import Module

from . import _capture, _checkpoint, _source, saved
from ._dynamo import skip
from ._experiments import Experiments
from ._gone import when_gone
from ._graphs import Graphs
from ._modules import is_script, itself, why_opaque
from ._own_call import is_unseen
from ._patch_block import Edit, PatchBlock, tell_of_edits
from ._place import placed
from ._recorder import Recorder, Recording
from ._side_effects import unchanged
from ._thread import thread
from ._transforms import refuse, refuse_compilation, refuse_transforms
from ._watched import asking, watched
from .errors import PickleError
from .graph import NodePath
from .options import ExtractionOptions
from .patches import Patch
from .saved import File

Path: TypeAlias = str | NodePath


def _refuse_opaque(module: Module) -> None:
    """Raises ValueError if ``module`` is not a module, or if its inside cannot be seen."""
    if not isinstance(module, Module):
        # A function, or a package of AOTInductor's.
        how = ": call it in the forward of one" if callable(module) else ""
        raise ValueError(f"a PatchableGraph wraps a torch.nn.Module, and {type(module).__name__} is none{how}")
    _capture.install()
    why = why_opaque(module)
    if why:
        raise ValueError(f"{type(module).__name__}: its inside is not visible: {why}")
    if is_script(module):
        raise ValueError(
            f"{type(module).__name__}: a TorchScript module cannot be the outermost one: put it into a"
            " torch.nn.Module that calls it; its inside will be visible there"
        )


def _forward(graph: PatchableGraph, *args: Any, **kwargs: Any) -> Any:
    # torch.fx passes one proxy for all arguments. It cannot be unpacked for the call below, so it is refused before.
    refuse_transforms(type(graph._module).__name__, args, kwargs)
    return graph(*args, **kwargs)


class _Forward:
    """The ``forward`` of a PatchableGraph. It calls the PatchableGraph, so that the call is a run, and has the
    signature of the module's own ``forward``, whose direct call would not be a run."""

    def __get__(self, graph: PatchableGraph | None, _kind: type | None = None) -> Callable[..., Any]:
        if graph is None:
            return _forward
        call: Callable[..., Any] = functools.partial(_forward, graph)
        return functools.wraps(graph._module.forward)(call)


class PatchableGraph(Experiments):
    """A module whose every intermediate tensor can be seen and patched by name.

    The module is run once with the example inputs to record its graph; it is neither copied, rewritten nor compiled,
    and any control flow works. Attributes that a PatchableGraph does not have itself (``generate()``, ``state_dict()``,
    ``config``) are those of the module. Patches hold for calls of the module itself, too.

    >>> pg = PatchableGraph(model, **inputs)
    >>> with pg.patch({"layers_2.mlp.output": [probe := ProbePatch(), ZeroPatch()]}):
    ...     patched = pg(**inputs)
    >>> probe.activation

    Any number of threads may use a PatchableGraph; patches hold on all of them. What a module does on threads that it
    starts itself is no part of its run. A module may have several PatchableGraphs, each with its own graph and patches.
    A call of the module itself is then a run of the one whose block was entered last.

    Args:
        module: Any ``torch.nn.Module``.
        example_args, example_kwargs: Inputs for it. The run with them is under ``no_grad``, and buffers and random
            numbers are afterwards what they were.

    Raises:
        ValueError: ``module`` is no module, or a compiled one, whose inside cannot be seen.
        AdapterError: libgraphpatch does not work with this libtorch.
    """

    _module: Module
    _recorder: Recorder

    def __init__(self, module: Module, *example_args: Any, **example_kwargs: Any) -> None:
        _refuse_opaque(module)
        options = None
        if example_args and isinstance(example_args[0], ExtractionOptions):
            options, example_args = example_args[0], example_args[1:]
            module = options.prepared(module)
        self._begin(module, None)
        recorder = self._recorder
        if options is not None and options.inside is not None:
            recorder.show_inside(options.inside)
        with torch.no_grad(), unchanged(module):
            self.record(*example_args, **example_kwargs)
            if recorder.root.foreign:  # this run has shown further modules: record once more, with their parameters
                self.record(*example_args, **example_kwargs)
        if is_unseen(type(module)) and not recorder.root.begun:
            name = type(module).__name__
            raise ValueError(f"a call of {name} is no run: its class has a `__call__` that is no function")
        if options is not None:
            options.check_used(module, {called for _, called in recorder.root.scopes})

    def _begin(self, module: Module, loaded: Graphs | None) -> None:
        recorder = Recorder(itself(module), loaded)
        vars(self).update(_module=module, _recorder=recorder)
        when_gone(self, watched.remove, recorder.root)
        # At the end of the process, too, since an edit that is to hold for good is never closed.
        when_gone(self, tell_of_edits, recorder, at_exit=True)
        _source.install(recorder.session)
        _checkpoint.install()

    @classmethod
    def _of(cls, module: Module, graphs: Graphs) -> PatchableGraph:
        """A PatchableGraph whose graph was recorded before."""
        pg = cls.__new__(cls)
        pg._begin(module, graphs)
        return pg

    @classmethod
    def watching(cls, module: Module) -> PatchableGraph:
        """A PatchableGraph that records the next call of the module, which other code makes, such as a server or a
        trainer. The module is not run for it. Until that call has ended, it has no graph.

        >>> pg = PatchableGraph.watching(model)
        >>> trainer.train()
        >>> pg.graph

        Raises ValueError as the constructor does.
        """
        _capture.install()
        _refuse_opaque(module)
        pg = cls.__new__(cls)
        pg._begin(module, None)
        recorder = pg._recorder
        recorder.want(1)
        recorder.record(1)

        def ended(*_: Any) -> None:
            hook.remove()
            recorder.record(-1)
            recorder.want(-1)

        hook = module.register_forward_hook(ended, always_call=True)
        return pg

    # --- the module ---

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the module, under the patches that hold."""
        refuse_transforms(type(self._module).__name__, *args, *kwargs.values())
        outer, thread.asked = thread.asked, self._recorder.root
        try:
            return self._module(*args, **kwargs)
        finally:
            thread.asked = outer

    forward = _Forward()

    def __prepare_scriptable__(self) -> NoReturn:
        """Called by ``torch.jit.script``, which is refused."""
        refuse(type(self._module).__name__, "torch.jit.script()")

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The module's class, so that ``isinstance`` regards this as a module; ``type()`` tells the difference."""
        return type(self._module)

    def __getattr__(self, name: str) -> Any:
        if name == "_module":
            raise AttributeError(name)
        value = getattr(self._module, name)
        if inspect.ismethod(value) and value.__self__ is self._module:
            refuse_compilation(type(self._module).__name__)
            return self._answering_with_self(value)
        return value

    def _answering_with_self(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """A method of the module's that returns the PatchableGraph if it would return the module (``to``, ``eval``)."""

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            with asking(self._recorder.root):
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

    def __dir__(self) -> list[str]:
        return sorted({*dir(type(self)), *dir(self._module)})

    def __len__(self) -> int:
        return len(self._module)

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: Any) -> Any:
        return self._module[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._module)

    def __repr__(self) -> str:
        return f"PatchableGraph(\n{self._module!r}\n)"

    def __reduce__(self) -> NoReturn:
        raise PickleError(
            "a PatchableGraph cannot be pickled, as its patches belong to this process: use `pg.save(file)`, or"
            " `copy.deepcopy(pg)`; or save the module (`pg.module`) and, with `pg.save_graph(file)`, its graph"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> PatchableGraph:
        """A PatchableGraph of a copy of the module, with the same graph, and without the patches that hold here."""
        copied = PatchableGraph._of(copy.deepcopy(self._module, memo), self._recorder.graph().graphs)
        memo[id(self)] = copied
        return copied

    def save(self, file: File) -> None:
        """Saves the module, as ``torch.save`` does, together with its graph, for :meth:`load`. ``file`` is a name, or
        open for writing. Raises OSError, and what the module raises that cannot be pickled."""
        saved.save(self._module, self._recorder.graph().graphs, file)

    @classmethod
    def load(cls, file: File, map_location: Any = None) -> PatchableGraph:
        """The PatchableGraph that :meth:`save` wrote; nothing is run for it. Its graph is the saved one, until a run is
        recorded: recording begins anew. As ``torch.load`` without ``weights_only`` does, it may run code that the file
        holds: load only what you trust. ``map_location`` is that of ``torch.load``.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is no file of :meth:`save`, or one of another version.
        """
        loaded = saved.load(file, map_location)
        if type(loaded) is not PatchableGraph:
            raise ValueError(f"the file holds a {type(loaded).__name__}; PatchableGraph.save() did not write it")
        return loaded

    @property
    def _graph_module(self) -> Module:
        """The module itself, by the name that it has in the package graphpatch."""
        return self._module

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
        return NodePath(self._recorder.graph(), "")

    def record(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the module and records the run into the graph: new nodes are added, and sizes that differ from earlier
        runs become ranges. Returns what the module returns."""
        with self.recording():
            return self(*args, **kwargs)

    def recording(self) -> Recording:
        """A block in which all runs are recorded into the graph, ``generate()`` with its many steps, say."""
        return Recording(self._recorder)

    def save_graph(self, file: str | os.PathLike[str]) -> None:
        """Saves the graph as JSON, for ``graphpatch show`` and :func:`libgraphpatch.load_graph`."""
        self._recorder.graph().graphs.save(file)

    @property
    def notes(self) -> list[str]:
        """What a person should know of the runs so far: what could not be seen, and why."""
        return self._recorder.notes()

    # --- patches ---

    def patch(
        self,
        patches: Mapping[Path, Patch[Any] | Sequence[Patch[Any]]],
        *,
        on_error: str = "raise",
        on_missing: str = "warn",
        runs: str | None = None,
        this_thread: bool = False,
    ) -> PatchBlock:
        """A context manager inside which the patches hold, for all runs of the module that begin in it.

        Patches at one node act in the order given; those of an inner block come after those of the outer one.

        Args:
            patches: Paths, as text (``"linear_1.output|sub_0"``) or nodes of :attr:`graph`, and what is done there.
                A path may be a pattern, ``"h_*.mlp.output"``, as in :meth:`NodePath.find`: it means all tensors that
                it fits.
            on_error: What a patch that cannot be applied in a run does: ``"raise"`` an error, or ``"skip"`` it. Holds
                for all patches of this PatchableGraph while the block lasts.
            on_missing: What to do about a patch whose node no run has reached, if the block ends without an exception:
                ``"warn"`` (a :class:`MissingPatchWarning`), ``"raise"`` a :class:`PatchError`, or ``"ignore"``. While
                runs that began in the block are under way on other threads, they may still reach it: then the warning
                comes when the last of them ends, also in place of the error.
            runs: Hold for some runs only, counted from 0 on inside the block: ``"3"``, ``"2.."``, ``"0..4"``
                (without 4).
            this_thread: Hold for runs on this thread only.

        The block is a decorator, too. The object that ``with`` names has the patches' :attr:`~PatchBlock.counts`.

        >>> with pg.patch({"h_*.mlp.output": ZeroPatch()}) as patched:
        ...     pg(x)
        >>> patched.counts["h_0.mlp.output"]
        [Counts(matched=1, applied=1, failed=0)]

        Raises:
            KeyError: Paths that name no leaf of the graph, all of them, with their nearest completions; patterns that
                fit none.
            ValueError: What is no path, no patch, or not a mapping.
        """
        places = placed(patches, self._recorder.graph(), self._module)
        return PatchBlock(
            self._recorder, places, on_error=on_error, on_missing=on_missing, runs=runs, this_thread=this_thread
        )

    def edit(self, patches: Mapping[Path, Patch[Any] | Sequence[Patch[Any]]], **options: Any) -> Edit:
        """Makes the patches hold from now on, without a block, until :meth:`Edit.close`. Takes and raises what
        :meth:`patch` does.

        >>> edit = pg.edit({"h_2.mlp.output": ZeroPatch()})
        >>> pg(x)
        >>> edit.close()
        """
        return Edit(self.patch(patches, **options))


saved.made_by(PatchableGraph._of)

# torch.compile must not trace these functions. It calls them as they are, and they refuse it.
for method in (PatchableGraph.__call__, _forward):
    vars(method)["_torchdynamo_disable"] = True
    skip(method.__code__)
