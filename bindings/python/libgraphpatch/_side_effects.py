"""A run that leaves nothing behind: buffers and random numbers are afterwards what they were."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch.nn import Module


@contextlib.contextmanager
def unchanged(module: Module) -> Iterator[None]:
    """Buffers of the module and random numbers are behind the block what they were before it. Those of inference mode
    and without data are left out."""
    buffers = [
        (below, name, buffer, buffer.clone()) for below in module.modules() for name, buffer in _plain_buffers(below)
    ]
    devices = {tensor.device for tensor in [*module.parameters(), *module.buffers()] if tensor.is_cuda}
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            for holder, name, buffer, copy in buffers:
                if not torch.equal(buffer, copy):  # not all of libtorch's writes count as a new version
                    buffer.copy_(copy)
                if getattr(holder, name, buffer) is not buffer:  # the module put another one there
                    setattr(holder, name, buffer)


def _plain_buffers(module: Module) -> list[tuple[str, torch.Tensor]]:
    buffers = list(module.named_buffers(recurse=False, remove_duplicate=False))
    return [(name, buffer) for name, buffer in buffers if not buffer.is_inference() and not buffer.is_meta]
