"""The values of one run by path."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ._files import beside
from ._html import table
from ._optional import needed
from .graph import NodePath


class ActivationCache(Mapping[str, Tensor]):
    """Tensors by path, in the order in which the graph has them: what :meth:`PatchableGraph.cache` returns. A node of
    the graph may stand for its path. A cache never changes; its methods return new caches.

    Attributes:
        output: What the module returned; None where the run was ended early.
        grads: The gradients of the loss that was asked for, by path; empty without one.
    """

    def __init__(
        self, values: Mapping[str, Tensor], *, output: Any = None, grads: Mapping[str, Tensor] | None = None
    ) -> None:
        self._values = dict(values)
        self.output = output
        self.grads: Mapping[str, Tensor] = ActivationCache(grads) if grads else {}

    # --- a mapping ---

    def __getitem__(self, path: str | NodePath) -> Tensor:
        try:
            return self._values[str(path)]
        except KeyError:
            raise KeyError(f"{path}: is not in this cache of {len(self)} values") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, path: object) -> bool:
        return str(path) in self._values

    def _ipython_key_completions_(self) -> list[str]:
        return [*self._values]

    def __repr__(self) -> str:
        lines = [f"{path}: {tuple(value.shape)} {_dtype(value)}" for path, value in [*self.items()][:20]]
        more = [f"... {len(self) - 20} more"] if len(self) > 20 else []
        return "\n".join([f"ActivationCache of {len(self)} values", *lines, *more])

    def _repr_html_(self) -> str:
        rows = [(path, str(tuple(value.shape)), _dtype(value), _range(value)) for path, value in self.items()]
        return table(("path", "shape", "dtype", "range"), rows)

    # --- what can be computed from a cache ---

    def map(self, function: Callable[[Tensor], Tensor]) -> ActivationCache:
        """A cache with each value and each gradient replaced by what ``function`` returns for it."""
        return ActivationCache(
            {path: function(value) for path, value in self.items()},
            output=self.output,
            grads={path: function(value) for path, value in self.grads.items()},
        )

    def to(self, *args: Any, **kwargs: Any) -> ActivationCache:
        """The values on another device or of another dtype, as ``Tensor.to`` takes them."""
        return self.map(lambda value: value.to(*args, **kwargs))

    def rows(self, index: int | slice | Tensor | list[int]) -> ActivationCache:
        """Those rows of a batch, which is each value's first dimension; an integer takes the dimension away."""
        return self.map(lambda value: value[index] if value.dim() else value)

    def norms(self, ord: float = 2, dim: int | tuple[int, ...] | None = -1) -> ActivationCache:
        """The norm of each value along a dimension, or of all of it with ``dim=None``; in float32 at least. Values
        without sizes keep their absolute value, and those that are no floating-point numbers are left out."""
        floating = {path: value for path, value in self.items() if value.is_floating_point() or value.is_complex()}
        return ActivationCache({path: _norm(value, ord, dim) for path, value in floating.items()})

    def stack(self, pattern: Iterable[str] | None = None) -> Tensor:
        """The values as one tensor, ``(number of values, ...)``. Raises ValueError where their shapes differ."""
        paths = [*self] if pattern is None else [*pattern]
        shapes = {tuple(self[path].shape) for path in paths}
        if len(shapes) != 1:
            raise ValueError(f"values of {len(shapes)} different shapes cannot be stacked")
        return torch.stack([self[path] for path in paths])

    @staticmethod
    def concat(caches: Iterable[ActivationCache], dim: int = 0) -> ActivationCache:
        """Joins the caches of several batches, or of several ranks, along a dimension, by default that of the batch.
        Values that one of them lacks are left out."""
        every = [*caches]
        if not every:
            raise ValueError("there is no cache to join")
        shared = [path for path in every[0] if all(path in cache for cache in every)]
        return ActivationCache({path: torch.cat([cache[path] for cache in every], dim) for path in shared})

    def numpy(self) -> dict[str, Any]:
        """The values as NumPy arrays. Values of bfloat16, which NumPy lacks, become float32."""
        return {path: _for_numpy(value).numpy() for path, value in self.items()}

    def to_safetensors(self, file: str | os.PathLike[str]) -> None:
        """Saves the values by path, for :meth:`from_safetensors`, ``ReplacePatch`` and the command's
        ``replace:@FILE#PATH``. Needs the package safetensors. Raises OSError."""
        save_file = needed("safetensors.torch", "safetensors").save_file
        with beside(file) as part:
            save_file({path: value.detach().contiguous() for path, value in self.items()}, os.fspath(part))

    @staticmethod
    def from_safetensors(file: str | os.PathLike[str]) -> ActivationCache:
        """The cache that :meth:`to_safetensors` saved. Raises OSError; and what the package safetensors raises for a
        file that is none of its own."""
        return ActivationCache(needed("safetensors.torch", "safetensors").load_file(os.fspath(file)))


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _range(value: Tensor) -> str:
    if not value.numel() or value.is_complex():
        return ""
    return f"{value.min().item():.4g} .. {value.max().item():.4g}"


def _norm(value: Tensor, ord: float, dim: int | tuple[int, ...] | None) -> Tensor:
    precise = value.to(torch.promote_types(value.dtype, torch.float32))
    if not value.dim():
        return precise.abs()
    norm: Tensor = torch.linalg.vector_norm(precise, ord, dim)
    return norm


def _for_numpy(value: Tensor) -> Tensor:
    value = value.detach().cpu().resolve_conj().resolve_neg()
    return value.float() if value.dtype == torch.bfloat16 else value
