"""Where requests arrive: what they ask for is checked there, so that a client gets an error and the engine never sees
it."""

from __future__ import annotations

import functools
import uuid
from typing import Any

from vllm.v1.engine.input_processor import InputProcessor

from .asked import KEY, asked
from .checked import places
from .folder import Folder
from .refusals import why_refused
from .wire import Wire


def install(folder: Folder) -> None:
    """Has every request pass by :func:`prepare`."""
    process: Any = InputProcessor.process_inputs

    @functools.wraps(process)
    def process_inputs(self: Any, *args: Any, **kwargs: Any) -> Any:
        request = process(self, *args, **kwargs)
        prepare(request, self.vllm_config, folder)
        return request

    InputProcessor.process_inputs = process_inputs


def prepare(request: Any, config: Any, folder: Folder) -> None:
    """Checks what a request asks for, and puts what the worker needs in its place. Raises ValueError, which the
    server answers as HTTP 400."""
    sampling = request.sampling_params
    extra = getattr(sampling, "extra_args", None)  # a request without sampling, for embeddings, has none
    if not extra or KEY not in extra:
        return
    wanted = asked(extra[KEY])
    probes = any(one.kind == "probe" for one in wanted)
    why = why_refused(config, sampling, request, probes)
    if why:
        raise ValueError(f"{KEY}: {why}")
    prompt = request.prompt_token_ids if request.prompt_token_ids is not None else request.prompt_embeds
    found = places(wanted, folder, config.instance_id, len(prompt), config.model_config.max_model_len)
    kept = folder.new_kept(request.request_id) if probes else ""
    # With strings that stop it, nobody in the engine knows which output is the last one.
    wire = Wire(found, kept, bool(sampling.stop))
    sampling.extra_args = {**extra, KEY: wire.packed()}
    # A salt goes into the hashes of cached blocks: nobody else's are read, and nobody else reads those of this request.
    request.cache_salt = f"{KEY}-{uuid.uuid4().hex}"
