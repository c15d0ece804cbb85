"""Runs without side effects: afterwards, buffers and random numbers are as before."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable

import torch
from torch.nn import Module
from torch.nn.parameter import is_lazy


@contextlib.contextmanager
def unchanged(module: Module) -> Generator[None, None, None]:
    """Restores the buffers of the module and the random numbers after the block. Buffers of inference mode, without
    data, and of kinds that libtorch cannot copy are left out."""
    buffers = [_Buffer(below, name, buffer) for below in module.modules() for name, buffer in _with_data(below)]
    devices = {tensor.device for tensor in [*module.parameters(), *module.buffers()] if tensor.is_cuda}
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            for buffer in buffers:
                buffer.restore()


class RandomNumbers:
    """The state of the generators of random numbers at one time: the CPU's, and those of CUDA devices."""

    def __init__(self, devices: Iterable[int | torch.device]) -> None:
        self._cpu = torch.get_rng_state()
        self._cuda = {device: torch.cuda.get_rng_state(device) for device in devices}

    def restore(self) -> None:
        torch.set_rng_state(self._cpu)
        for device, state in self._cuda.items():
            torch.cuda.set_rng_state(state, device)


class Before:
    """The content of tensors, and the state of the random numbers, at one time. Leaves that require gradients are left
    out."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        self._values = [_Value(tensor) for tensor in tensors if not (tensor.requires_grad and tensor.is_leaf)]
        self._random = RandomNumbers({value.tensor.device for value in self._values if value.tensor.is_cuda})

    def restore(self) -> None:
        """Restores that content and that state."""
        for value in self._values:
            value.restore()
        self._random.restore()


class _Value:
    """The content of a tensor at one time."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, self.version = tensor, tensor._version
        self.copy: torch.Tensor | None = None
        with contextlib.suppress(*_NOT_FOR_THIS_KIND):
            self.copy = tensor.detach().clone()

    def restore(self) -> None:
        if self.copy is not None and self._is_written(self.copy):
            with torch.no_grad():
                self.tensor.copy_(self.copy)

    def _is_written(self, copy: torch.Tensor) -> bool:
        """Whether the tensor was written. Not all writes of libtorch raise the version, so the elements are compared;
        NaN equals NaN."""
        now = self.tensor
        try:
            return not (torch.equal(now, copy) or torch.allclose(now, copy, rtol=0, atol=0, equal_nan=True))
        except _NOT_FOR_THIS_KIND:  # for example a sparse or nested tensor, or one of four bits
            return bool(now._version != self.version)


class _Buffer(_Value):
    """A buffer as it is now."""

    def __init__(self, holder: Module, name: str, buffer: torch.Tensor) -> None:
        super().__init__(buffer)
        self.holder, self.name = holder, name

    def restore(self) -> None:
        try:
            super().restore()
        except _NOT_FOR_THIS_KIND:
            setattr(self.holder, self.name, self.copy)
            return
        if getattr(self.holder, self.name, self.tensor) is not self.tensor:  # the module has assigned another tensor
            setattr(self.holder, self.name, self.tensor)


# What libtorch raises where it lacks an operation for a layout or a dtype.
_NOT_FOR_THIS_KIND = (RuntimeError, AttributeError, TypeError, ValueError)


def _with_data(module: Module) -> list[tuple[str, torch.Tensor]]:
    buffers = list(module.named_buffers(recurse=False, remove_duplicate=False))
    return [
        (name, buffer)
        for name, buffer in buffers
        if not is_lazy(buffer) and not buffer.is_inference() and not buffer.is_meta
    ]
