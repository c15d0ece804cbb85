"""The OpenAI server: requests bring patches as objects, and answers tell what came of them."""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator
from typing import Any

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion

from .asked import KEY


def install() -> None:
    """Changes the server's models of requests, which have to be imported before its routes are, and what answers
    them."""
    for kind in (CompletionRequest, ChatCompletionRequest):
        # vLLM's own type has room for texts and numbers only.
        kind.model_fields["vllm_xargs"].annotation = dict[str, Any] | None
        kind.model_rebuild(force=True)
    for server, create, stream in (
        (OpenAIServingCompletion, "create_completion", "completion_stream_generator"),
        (OpenAIServingChat, "create_chat_completion", "chat_completion_stream_generator"),
    ):
        setattr(server, create, _telling(getattr(server, create)))
        setattr(server, stream, _telling_at_the_end(getattr(server, stream)))


def _asks(request: Any) -> bool:
    return KEY in (request.vllm_xargs or {})


def _why_refused(request: Any) -> str:
    """Why the request cannot be patched; empty if it can."""
    if request.use_beam_search:
        return "a beam search computes its texts in other requests, which have no patches: leave out use_beam_search"
    prompt = getattr(request, "prompt", None)
    if isinstance(prompt, list) and len(prompt) > 1 and not isinstance(prompt[0], int):
        return "an answer has room for what came of one prompt: send one prompt in each request"
    return ""


def _telling(create: Any) -> Any:
    """The method that answers a request, with what came of the patches as the answer's `graphpatch`."""

    @functools.wraps(create)
    async def telling(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        why = _why_refused(request) if _asks(request) else ""
        if why:
            return self.create_error_response(f"{KEY}: {why}")
        answer = await create(self, request, *args, **kwargs)
        parameters = getattr(answer, "kv_transfer_params", None)
        if parameters and KEY in parameters:
            told = parameters[KEY]
            answer.kv_transfer_params = {key: value for key, value in parameters.items() if key != KEY} or None
            setattr(answer, KEY, told)
        return answer

    return telling


def _telling_at_the_end(stream: Any) -> Any:
    """The method that makes the parts of a streamed answer, with one more before the end, which has no choices."""

    @functools.wraps(stream)
    async def telling(self: Any, request: Any, *args: Any, **kwargs: Any) -> AsyncIterator[str]:
        told: list[Any] = []
        if _asks(request):
            args = tuple(_noting(one, told) if hasattr(one, "__aiter__") else one for one in args)
            kwargs = {name: _noting(one, told) if hasattr(one, "__aiter__") else one for name, one in kwargs.items()}
        async for part in stream(self, request, *args, **kwargs):
            if told and part.startswith("data: [DONE]"):
                yield f"data: {json.dumps({'model': request.model, 'choices': [], KEY: told[-1]})}\n\n"
            yield part

    return telling


async def _noting(results: Any, told: list[Any]) -> AsyncIterator[Any]:
    async for one in results:
        output = one[1] if isinstance(one, tuple) else one
        parameters = output.kv_transfer_params
        if parameters and KEY in parameters:
            told.append(parameters[KEY])
        yield one
