"""What is done with a module in one line: the experiments of a :class:`PatchableGraph`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from . import _run_kept
from ._recorder import Recorder
from ._run_kept import Nodes
from .cache import ActivationCache
from .graph import NodePath


class Experiments:
    """The methods of a PatchableGraph that run it, and say what came of that."""

    _recorder: Recorder
    patch: Callable[..., Any]
    __call__: Callable[..., Any]

    def cache(
        self,
        *inputs: Any,
        nodes: Nodes = None,
        grads: Callable[[Any], Tensor] | None = None,
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
        if nodes is None and len(inputs) > 0 and isinstance(inputs[-1], (str, NodePath)):
            *inputs, nodes = inputs  # type: ignore[assignment]
        return _run_kept.keep(self, inputs, kwargs, nodes, grads, until)
