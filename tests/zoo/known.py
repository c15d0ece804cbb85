"""Faults that are known, each with the reason. The list is strict: a failure that it does not name fails the test, and
so does an entry of it that no longer shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    models: tuple[str, ...]
    check: str
    failure: str
    """A regular expression that matches the beginning of each failure that it explains."""
    reason: str


_ORDER = "a patched copy of a ModelOutput has its keys in another order"
_TEXT = "a path to a text is accepted, and then refused in the run"
_SAME_OBJECT = "no fault: nn.MultiheadAttention asks `key is value`, and the patched copies are two tensors"

KNOWN: list[Known] = [
    Known(("aria", "aya_vision"), "minus_zero_everywhere", r"<root>: -0.0 everywhere: \.image_outputs", _ORDER),
    Known(("aria", "aya_vision"), "one_by_one", r"(model\.)?output\|image_outputs\.\S+: -0.0", _ORDER),
    Known(("modernbert",), "one_by_one", r"model\.rotary_emb\w*\.layer_type: probe", _TEXT),
    Known(
        ("siglip",),
        "minus_zero_everywhere",
        r"<root>: -0.0 everywhere: PatchError\('patches never matched: vision_model\.head\.attention\.split_with",
        _SAME_OBJECT,
    ),
]
