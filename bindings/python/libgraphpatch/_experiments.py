"""The experiments of a :class:`PatchableGraph`, each of which is one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from . import _interchange, _run_kept, _sweeping
from ._call import Call
from ._interchange import Position
from ._recorded import Recorded
from ._run_kept import Metric, Nodes
from .cache import ActivationCache
from .check import Checked, check
from .divergence import Divergence, first_divergence
from .graph import NodePath
from .patches import Patch, ZeroPatch
from .sweep import Sweep


class Experiments(Recorded):
    """The methods of a PatchableGraph that run the module and return a result of these runs."""

    def cache(
        self,
        *inputs: Any,
        nodes: Nodes = None,
        grads: Metric | None = None,
        until: str | NodePath | None = None,
        **kwargs: Any,
    ) -> ActivationCache:
        """Runs the module, under the patches that hold, and returns its values by path.

        >>> cache = pg.cache(ids, "transformer.h_*.output|sub_0")
        >>> cache["transformer.h_3.output|sub_0"].norm()

        Args:
            inputs, kwargs: The module's. A text or a node of the graph that stands last among ``inputs`` is ``nodes``,
                unless that is given by name.
            nodes: Paths, nodes or patterns; all tensors of the graph without.
            grads: Computes a loss, a tensor of one element, from what the module returns: the cache's
                :attr:`~ActivationCache.grads` are its gradients. Gradients are on then, and the parameters' own
                ``.grad`` stays as it is.
            until: The run ends at this node.

        Raises:
            KeyError: Nodes that are no leaves of the graph.
            ValueError: ``grads`` and ``until`` together.
        """
        if nodes is None and inputs and isinstance(inputs[-1], (str, NodePath)):
            inputs, nodes = inputs[:-1], inputs[-1]
        return _run_kept.keep(self, inputs, kwargs, nodes, grads, until)

    def run_with(self, patches: Mapping[Any, Any], *inputs: Any, **kwargs: Any) -> Any:
        """Runs the module once with these patches, as in a block of :meth:`PatchableGraph.patch`, and returns what it
        returns; None where a :class:`StopPatch` ends the run.

        >>> pg.run_with({"transformer.h_*.mlp.output": ZeroPatch()}, ids).logits

        Args:
            patches: As in :meth:`PatchableGraph.patch`, which says what is raised.
            inputs, kwargs: The module's.
        """
        with self.patch(patches):
            return self(*inputs, **kwargs)

    def swap(self, clean: Any, corrupted: Any, nodes: Nodes, positions: Iterable[Position] | None = None) -> Any:
        """Runs the module on ``corrupted``, with the values of its run on ``clean`` at the nodes: interchange, or
        activation patching. Returns what the module returns.

        >>> pg.swap(clean_ids, corrupted_ids, "transformer.h_3.mlp.output", positions=[4, (5, 6)]).logits

        Args:
            clean, corrupted: Inputs: a tuple of positional ones, a mapping of named ones, or the only one.
            nodes: Paths, nodes or patterns.
            positions: Only these, along the nodes' second dimension: a position of both runs, or a pair of one in the
                clean run and the one in the corrupted run that its value goes to. Without, whole values, which have to
                be of shapes that fit.

        Raises:
            KeyError: Nodes that are no leaves of the graph.
            PatchError: Values that do not fit.
        """
        return _interchange.swap(self, Call.of(clean), Call.of(corrupted), nodes, positions)

    def attribute(self, clean: Any, corrupted: Any, nodes: Nodes, *, metric: Metric) -> ActivationCache:
        """Attribution patching: what :meth:`swap` at each node would change of the metric, estimated for all of them
        by two runs and one backward pass, as ``(clean - corrupted) * gradient``, element by element (N. Nanda,
        "Attribution patching: activation patching at industrial scale", 2023; Syed, Rager, Conmy, "Attribution
        patching outperforms automated circuit discovery", arXiv:2310.10348).

        >>> effects = pg.attribute(clean, corrupted, "h_*.output", metric=lambda out: out.logits[0, -1, 7])
        >>> effects.map(lambda value: value.sum(-1))     # by position

        Args:
            clean, corrupted, nodes: As in :meth:`swap`.
            metric: A number, as a tensor of one element, from what the module returns.

        Returns:
            The estimates by path, each of its value's shape; without nodes that the metric does not depend on.

        Raises:
            ValueError: The runs have values of different shapes.
        """
        return _interchange.attribute(self, Call.of(clean), Call.of(corrupted), nodes, metric)

    def path_patch(self, clean: Any, corrupted: Any, senders: Nodes, receivers: Nodes, *, freeze: Nodes = None) -> Any:
        """Path patching: runs the module on ``corrupted``. There the receivers see the effect of the senders' clean
        values, except for effects that pass through nodes of ``freeze`` (Wang et al., "Interpretability in the wild",
        arXiv:2211.00593; Goldowsky-Dill et al., "Localizing model behavior with path patching", arXiv:2304.05969).
        Returns what the module returns.

        >>> pg.path_patch(clean, corrupted, "h_0.attn.output|sub_0", "h_3.mlp.hidden_states",
        ...               freeze="h_*.{attn.output|sub_0,mlp.output}")

        Args:
            clean, corrupted: As in :meth:`swap`.
            senders, receivers: Paths, nodes or patterns.
            freeze: Nodes that keep their corrupted values on the way; senders and receivers among them do not count.
        """
        return _interchange.path_patch(self, Call.of(clean), Call.of(corrupted), senders, receivers, freeze)

    def sweep(
        self,
        nodes: Nodes,
        *inputs: Any,
        metric: Callable[[Any], Any],
        positions: Iterable[Any] | None = None,
        patch: Patch[Any] | None = None,
        source: Any = None,
        batch: int = 32,
        dim: int = 1,
        resume: bool = True,
        **kwargs: Any,
    ) -> Sweep:
        """Runs the module once for each node and position, patched there, and measures ``metric``.

        >>> sweep = pg.sweep("transformer.h_*.output|sub_0", corrupted, positions=range(24), source=clean,
        ...                  metric=lambda output: output.logits[0, -1, 7])
        >>> sweep.values                                # (12, 24)
        >>> sweep.plot()

        Experiments are rows of one call, and a call begins where its first patch stands: modules that have ended before
        it return what they returned in the first run. Both are tried without patches first, and left out where they
        would change the result by more than rounding; the sweep's :attr:`~Sweep.notes` say so. Where experiments are
        rows of one call, linear modules compute only rows of their input that are not, bit for bit, as in the first
        run, and keep for that as many bytes as the module's parameters have, 64 MiB at least. With ``batch=1`` and
        ``resume=False`` every experiment is a whole run of its own. Patches that hold around it hold in all runs, and
        gradients are off.

        Args:
            nodes: Paths, nodes or patterns.
            inputs, kwargs: The module's. Their tensors of as many rows as the first one has are a batch.
            metric: A number or a tensor from what the module returns for ``inputs``.
            positions: Indices along ``dim`` of the nodes' values: integers, slices or lists. Without, whole values.
            patch: What is done: by default a ZeroPatch.
            source: Values that are written there instead: by path, as :meth:`cache` returns them, or the inputs of a
                run, as in :meth:`swap`, that has them.
            batch: At most so many experiments in one call.
            dim: The dimension of the nodes' values that positions are of; 0 is the batch itself.
            resume: Whether calls may leave out what no patch reaches: modules that have ended before their first patch,
                and unchanged rows.

        Raises:
            KeyError: Nodes that are no leaves of the graph.
            ValueError: A patch with a slice of its own beside positions; a source that lacks a node.
            PatchError: A patch that does not fit, or a node that the module does not come by with these inputs.
        """
        values = self._source(nodes, source)
        call = Call(inputs, kwargs)
        chosen = patch or ZeroPatch()
        return _sweeping.sweep(self, call, nodes, positions, chosen, values, metric, batch, dim, resume)

    def _source(self, nodes: Nodes, source: Any) -> Mapping[str, Tensor] | None:
        if source is None or isinstance(source, ActivationCache):
            return source
        paths = _run_kept.paths_of(self, nodes)
        if isinstance(source, Mapping) and all(path in source for path in paths):
            return source
        call = Call.of(source)
        return _run_kept.keep(self, call.args, call.kwargs, paths, None, None)

    def check(self, *inputs: Any, rtol: float = 1e-4, atol: float = 1e-5, **kwargs: Any) -> Checked:
        """Checks that a recorded run agrees with what the module computes. It runs the module twice on these inputs,
        keeps every value, and computes every operation again from its recorded operands. The recorded graph stays as it
        is.

        >>> checked = pg.check(ids)
        >>> assert checked, checked

        Args:
            rtol, atol: The tolerances, as for ``torch.allclose``.
        """
        made: Any = type(self)
        once = made(self.module, *inputs, **kwargs)
        with torch.no_grad():
            values = once.cache(*inputs, nodes=once.graph.find(shape="..."), **kwargs)
        return check(once._recorder.graph().whole(), values, rtol, atol)

    def first_divergence(
        self,
        other: Experiments,
        *inputs: Any,
        nodes: Nodes = None,
        inputs_of_other: Any = None,
        rtol: float = 1e-4,
        atol: float = 1e-5,
        **kwargs: Any,
    ) -> Divergence:
        """Runs this module and another form or build of it on the same inputs, and finds the first node where their
        values part: compiled code against the model that it was compiled from, one dtype or device against another, a
        new checkpoint, a rewritten layer.

        >>> eager, compiled = PatchableGraph(model, ids), PatchableGraph(torch.compile(model), ids)
        >>> found = eager.first_divergence(compiled, ids)
        >>> assert found, found

        Both run without gradients and from the same random numbers: once as they are, and then with the values of all
        nodes that both graphs have. Of code that torch.compile made, these are the values that the code itself
        computes; it is compiled once more for them, and nodes that it has no values for are left out. Patches that hold
        for one of the two hold in its runs.

        Args:
            other: The other one. Nodes of the same path are compared, also across dtypes and devices.
            inputs, kwargs: The modules'.
            nodes: Paths, nodes or patterns of this graph; all that both have without.
            inputs_of_other: What the other one is run on instead, as in :meth:`swap`: inputs on another device, say.
            rtol, atol: The tolerances, as for ``torch.isclose``.

        Raises:
            KeyError: Nodes that are no leaves of this graph.
            ValueError: Graphs without a common node; a tolerance that is negative or NaN.
        """
        call = Call(inputs, kwargs)
        others = call if inputs_of_other is None else Call.of(inputs_of_other)
        return first_divergence(self, other, call, others, nodes, rtol, atol)
