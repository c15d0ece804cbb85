"""What a request carries from the process that takes it to the one that computes it: its patches, checked and with
their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Number = int | float


@dataclass
class Place:
    """One patch or probe at one node of the model.

    Attributes:
        slice: The items of a slice of one token's value; empty without one.
        value: What is added or written; None for a zero and a probe.
        spans: The positions of the request's text that are meant, as ranges without their ends.
    """

    path: str
    kind: str
    slice: str
    value: Tensor | Number | None
    spans: list[tuple[int, int]]


@dataclass
class Wire:
    """All of a request.

    Attributes:
        kept: The file for what the probes keep, relative to the server's folder; empty where there are none.
        reports: Whether every output of the request has to tell what came of the patches, and not only the last one.
    """

    places: list[Place]
    kept: str = ""
    reports: bool = False

    def packed(self) -> dict[str, Any]:
        """What vLLM can carry."""
        places = [
            [place.path, place.kind, place.slice, _packed(place.value), [[*span] for span in place.spans]]
            for place in self.places
        ]
        return {"places": places, "kept": self.kept, "reports": self.reports}

    @classmethod
    def unpacked(cls, given: Any) -> Wire:
        places = [
            Place(path, kind, inner, _unpacked(value), [(first, last) for first, last in spans])
            for path, kind, inner, value, spans in given["places"]
        ]
        return cls(places, given["kept"], given["reports"])


def _packed(value: Any) -> Any:
    """What vLLM can carry of a tensor, a number or None."""
    if not isinstance(value, Tensor):
        return value
    flat = value.contiguous().reshape(-1).view(torch.uint8)
    return [str(value.dtype).removeprefix("torch."), list(value.shape), flat.numpy().tobytes()]


def _unpacked(value: Any) -> Tensor | Number | None:
    if not isinstance(value, (list, tuple)):
        return value
    dtype, shape, data = value
    return torch.frombuffer(bytearray(data), dtype=getattr(torch, dtype)).reshape(shape)
