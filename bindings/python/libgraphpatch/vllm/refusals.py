"""What of a server, or of a request, makes patches impossible, and what to do about it."""

from __future__ import annotations

from typing import Any


def why_refused(config: Any, sampling: Any, request: Any, probes: bool) -> str:
    """Why the request cannot be patched; empty if it can.

    Args:
        config: The server's VllmConfig.
        sampling: The request's SamplingParams.
        probes: Whether it asks for values.
    """
    return why_not_in(config) or _why_not_for(sampling, request, probes)


def why_not_in(config: Any) -> str:
    """Why no request of the server can be patched; empty if they can."""
    parallel = config.parallel_config
    if not config.model_config.enforce_eager:
        return "the model is compiled, and what is inside is not reached: start the server with --enforce-eager"
    for name in ("tensor_parallel_size", "pipeline_parallel_size", "decode_context_parallel_size"):
        if getattr(parallel, name, 1) > 1:
            option = f"--{name.replace('_', '-')}"
            return f"the model lies on several ranks: start the server without {option}, or with {option} 1"
    if getattr(parallel, "use_ubatching", False) or getattr(parallel, "enable_dbo", False):
        return "batches are computed in halves: start the server without --enable-dbo"
    if config.speculative_config is not None:
        return "tokens are guessed ahead: start the server without --speculative-config"
    if getattr(config, "use_v2_model_runner", False):
        return "this vLLM has its second model runner: start the server with VLLM_USE_V2_MODEL_RUNNER=0"
    return ""


def _why_not_for(sampling: Any, request: Any, probes: bool) -> str:
    if getattr(request, "resumable", False):
        return "a request whose prompt goes on has no positions that are known"
    if probes and sampling.n > 1:
        return "a request with probes has one answer: leave out n, and ask several times"
    if probes and sampling.stop:
        return "a request with probes ends by tokens: give stop_token_ids instead of stop"
    return ""
