"""What a request asks for: its patches and probes as the client writes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .. import _limits
from .._library import lib, message, text

# The key of a request's extra arguments.
KEY = "graphpatch"
KINDS = ("zero", "add", "replace", "probe")
_KNOWN = ("path", "kind", "slice", "value", "scale", "positions", "steps")


@dataclass
class Asked:
    """One patch, or one probe.

    Attributes:
        slice: What stands between the brackets of a slice of one token's value; empty without one.
        value: A number, or the text of a tensor in a file.
    """

    path: str
    kind: str
    slice: str = ""
    value: Any = None
    scale: Any = 1
    positions: Any = None
    steps: Any = None

    def spans(self, prompt: int, most: int) -> list[tuple[int, int]]:
        """The positions that are meant of a request whose prompt has ``prompt`` tokens, and that has ``most`` at
        most."""
        given = {"prompt": [(0, prompt)], "generated": [(prompt, most)], "last": [(prompt - 1, most)]}.get(
            self.positions if isinstance(self.positions, str) else ""
        )
        if given is None:
            given = [(0, most)] if self.positions is None else _limits.spans("positions", self.positions, most)
        if self.steps is None:
            return given
        steps = _limits.spans("steps", self.steps, most - prompt + 1)
        # Step 0 computes the prompt, and each later one a further token.
        later = [(0 if first == 0 else prompt + first - 1, prompt + last - 1) for first, last in steps]
        return _both(given, later)


def _both(some: list[tuple[int, int]], others: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What lies in both lists of ranges."""
    pairs = [(max(one[0], two[0]), min(one[1], two[1])) for one in some for two in others]
    return [(first, last) for first, last in pairs if first < last]


def asked(given: Any) -> list[Asked]:
    """The patches and probes of a request. Raises ValueError for what is none.

    Args:
        given: A list of objects; one alone; or the JSON text of these, as vLLM takes no objects over HTTP.
    """
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError as why:
            raise ValueError(f"{KEY}: is no JSON: {why}") from None
    listed = given if isinstance(given, list) else [given]
    if not listed:
        raise ValueError(f"{KEY}: the list is empty: leave it out for a request that is not patched")
    found: list[Asked] = []
    for number, one in enumerate(listed):
        if isinstance(one, str):
            found += asked(one)
            continue
        try:
            found.append(_one(one))
        except ValueError as why:
            raise ValueError(f"{KEY}[{number}]: {why}") from None
    return found


def _one(given: Any) -> Asked:
    if not isinstance(given, dict) or not isinstance(given.get("path"), str):
        raise ValueError(
            f"give an object with a path, such as {{'path': 'model.layers_2.output|sub_0'}}, not {given!r}"
        )
    unknown = [key for key in given if key not in _KNOWN]
    if unknown:
        raise ValueError(f"{', '.join(map(str, unknown))}: is not known; there is {', '.join(_KNOWN)}")
    kind = given.get("kind")
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, not {kind!r}")
    one = Asked(**{**given, "slice": _inner(given.get("slice"))})
    has_value = kind in ("add", "replace")
    if has_value != (one.value is not None):
        raise ValueError(f"kind {kind!r} takes {'a' if has_value else 'no'} value")
    if not has_value and "scale" in given:
        raise ValueError(f"kind {kind!r} takes no scale")
    if isinstance(one.scale, bool) or not isinstance(one.scale, (int, float)):
        raise ValueError(f"scale is a number, not {one.scale!r}")
    if kind == "probe" and one.slice:
        raise ValueError("a probe takes no slice")
    if one.positions == "last" and kind != "probe":
        raise ValueError("positions 'last' is for probes: the token that the next one is computed from")
    one.spans(1, 2)  # raises for limits that are none
    return one


def _inner(given: Any) -> str:
    """The items of a slice's text, without the brackets."""
    if given is None:
        return ""
    if not isinstance(given, str):
        raise ValueError(f"slice is text such as '[..., 0]', not {given!r}")
    if lib.gp_slice_parse(given.encode(), None):
        raise ValueError(message())
    return text(lib.gp_slice_parse, given.encode())[1:-1]
