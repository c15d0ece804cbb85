"""The engine's loop: the last output of a patched request brings what came of its patches."""

from __future__ import annotations

import functools
import logging
from typing import Any

from vllm.v1.engine.core import EngineCore

from .asked import KEY

_log = logging.getLogger(__name__)


def install() -> None:
    """Has every output of the engine pass by :func:`_tell`."""
    add: Any = EngineCore.add_request

    @functools.wraps(add)
    def add_request(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        sampling = request.sampling_params
        if sampling is not None and KEY in (sampling.extra_args or {}):
            vars(self).setdefault("_graphpatch", {})[request.request_id] = request
        return add(self, request, *args, **kwargs)

    EngineCore.add_request = add_request
    for name in ("step", "step_with_batch_queue"):
        setattr(EngineCore, name, _telling(getattr(EngineCore, name)))


def _telling(step: Any) -> Any:
    @functools.wraps(step)
    def telling(self: Any, *args: Any, **kwargs: Any) -> Any:
        outputs, executed = step(self, *args, **kwargs)
        known = vars(self).get("_graphpatch")
        if known and outputs:
            for client in outputs.values():
                for output in client.outputs:
                    if output.request_id in known:
                        _tell(self, known, output)
            for request in [request for request in known if request not in self.scheduler.requests]:
                del known[request]
        return outputs, executed

    return telling


def _tell(engine: Any, known: dict[str, Any], output: Any) -> None:
    """Puts what came of the request's patches into its output. An error of ours must not end the engine: it is told
    instead."""
    request, ended = known[output.request_id], output.finish_reason is not None
    try:
        if not ended and not request.sampling_params.extra_args[KEY]["reports"]:
            return
        arguments = output.request_id, request.num_tokens, ended
        (told,) = engine.model_executor.collective_rpc(report_of, args=arguments)
    except Exception as error:
        _log.exception("libgraphpatch: the report of request %s", output.request_id)
        told = {"errors": [f"{type(error).__name__}: {error}"]}
    output.kv_transfer_params = {
        **(output.kv_transfer_params or {}),
        KEY: told or {"errors": ["it was never computed"]},
    }


def report_of(worker: Any, request: str, tokens: int, ended: bool) -> dict[str, Any] | None:
    """What the worker has to tell of a request. vLLM calls it there."""
    steering = vars(worker.model_runner).get("_graphpatch")
    return None if steering is None else steering.report(request, tokens, ended)
