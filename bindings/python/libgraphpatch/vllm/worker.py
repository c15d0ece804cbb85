"""The process that computes: which rows of a batch belong to which request, and the calls of the model around which
that matters."""

from __future__ import annotations

import functools
import logging
from typing import Any

from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from .folder import Folder
from .refusals import why_not_in
from .steering import Part, Steering

_log = logging.getLogger(__name__)


def install(folder: Folder) -> None:
    """Has the calls of every model pass by its :class:`Steering`."""
    forward: Any = GPUModelRunner._model_forward
    dummy: Any = GPUModelRunner._dummy_run

    @functools.wraps(forward)
    def _model_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        steering = _steering(self, folder)
        if steering is None:
            return forward(self, *args, **kwargs)
        with steering.batch(_parts(self), _tokens(args, kwargs), self.requests):
            return forward(self, *args, **kwargs)

    @functools.wraps(dummy)
    def _dummy_run(self: Any, *args: Any, **kwargs: Any) -> Any:
        steering = _steering(self, folder)
        if steering is not None:
            steering.pause()
        result = dummy(self, *args, **kwargs)
        if steering is not None:
            steering.warmed_up()
        return result

    GPUModelRunner._model_forward = _model_forward
    GPUModelRunner._dummy_run = _dummy_run


def _steering(runner: Any, folder: Folder) -> Steering | None:
    """That of the runner's model; None where requests cannot be patched."""
    if "_graphpatch" not in vars(runner):
        made = None
        config = runner.vllm_config
        try:
            if not why_not_in(config):
                made = Steering(runner.get_model(), folder, config.instance_id)
        except Exception:
            _log.exception("libgraphpatch: requests cannot be patched")
        runner._graphpatch = made
    return vars(runner)["_graphpatch"]  # type: ignore[no-any-return]


def _parts(runner: Any) -> list[Part]:
    """The requests of the batch that the runner has prepared."""
    batch = runner.input_batch
    starts = runner.query_start_loc.np
    found = []
    for row, request in enumerate(batch.req_ids):
        sampling = runner.requests[request].sampling_params
        start, end = int(starts[row]), int(starts[row + 1])
        extra = None if sampling is None else sampling.extra_args
        found.append(Part(request, start, int(batch.num_computed_tokens_cpu[row]), end - start, extra))
    return found


def _tokens(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """How many rows the call's values have, padding included."""
    positions = kwargs["positions"] if "positions" in kwargs else args[1]
    return int(positions.shape[-1])
