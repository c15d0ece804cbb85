"""Which part of a text a call of a model computes: the step of the generation, and the positions of its tokens.

``generate()`` of transformers calls the model once for the prompt, which is step 0, and once more for each further
token. With a cache such a call gets only the tokens that are new, without one all of them.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from ._gone import OfObjects
from ._kinds import is_a
from ._threads import local

# The arguments that hold a text's tokens, in the order in which they are looked for.
_TOKENS = ("decoder_input_ids", "decoder_inputs_embeds", "input_ids", "inputs_embeds")


@dataclass
class TextPart:
    """The part of a text that a call computes.

    Attributes:
        first: The position of its first token.
        batch: How many texts it gets.
        length: How many tokens it gets.
        prompt: The length of the prompt; None if its call was not seen.
        step: The step of the generation, from 0 on; None if the first one was not seen.
    """

    first: int
    batch: int
    length: int
    prompt: int | None
    step: int | None
    tokens: Tensor | None = None


class _State(local):
    def __init__(self) -> None:
        self.part: TextPart | None = None
        # The last call of each root, and since when its calls are looked at.
        self.last = OfObjects()


state = _State()


def text_part() -> TextPart | None:
    """The part that the call computes that is under way on this thread. None where no call has tokens."""
    return state.part


@contextlib.contextmanager
def located(root: Any, module: Module, args: Any, kwargs: Any) -> Generator[None, None, None]:
    """While the block runs, :func:`text_part` is that of this call of ``module``."""
    outer = state.part
    since, last = state.last.get(root) or (0, None)
    found = _locate(module, args, kwargs, last if since == root.limited else None)
    if found is not None:
        state.last.put(root, (root.limited, found))
    state.part = found
    try:
        yield
    finally:
        state.part = outer


def _locate(module: Module, args: Any, kwargs: Any, last: TextPart | None) -> TextPart | None:
    try:
        given = _signature(type(module).forward).bind_partial(module, *args, **kwargs).arguments
    except (TypeError, ValueError):
        return None
    given = {**given, **given.get("kwargs", {})}
    tokens = next((given[name] for name in _TOKENS if is_a(given.get(name), Tensor)), None)
    if tokens is None:
        tokens = next((value for value in args if is_a(value, Tensor)), None)
    if tokens is None or tokens.dim() < 2:
        return None
    first, (batch, length) = _cached(given), tokens.shape[:2]
    known = tokens.detach() if tokens.dim() == 2 and not tokens.is_floating_point() else None
    if first:
        # The cache goes on from the call before; if that was not seen, nobody knows where the prompt ended.
        follows = last is not None and last.first + last.length == first and last.step is not None
        prompt, step = (last.prompt, (last.step or 0) + 1) if last is not None and follows else (None, None)
        return TextPart(first, batch, length, prompt, step, known)
    if last is not None and last.first == 0 and _is_longer(known, last.tokens):
        return TextPart(0, batch, length, last.prompt, None if last.step is None else last.step + 1, known)
    return TextPart(0, batch, length, length, 0, known)


@functools.lru_cache(maxsize=64)
def _signature(forward: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(forward)


def _cached(given: dict[str, Any]) -> int:
    """How many tokens the call's cache holds already."""
    cache = given.get("past_key_values")
    if cache is None:
        return 0
    if hasattr(cache, "get_seq_length"):
        return int(cache.get_seq_length())
    with contextlib.suppress(TypeError, IndexError, AttributeError):
        return int(cache[0][0].shape[-2])
    return 0


def _is_longer(now: Tensor | None, before: Tensor | None) -> bool:
    """Whether the texts are those of the call before, each with a further token. Beams may have changed their order."""
    if now is None or before is None or now.shape[1] != before.shape[1] + 1 or now.device != before.device:
        return False
    with torch.no_grad():
        same = (now[:, None, :-1] == before[None]).all(-1)
        return bool(same.any(1).all())
