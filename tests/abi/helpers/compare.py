"""Compares two ABIs: lists what a client of the older one relies on and the newer one has changed."""

from collections.abc import Iterator
from typing import Any


def broken(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The differences that break clients of `old`: none if all of them run with a library of `new`."""
    return list(_broken(old, new))


def _broken(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    if old["number"] != new["number"]:
        yield f"the ABI's number was {old['number']} and is {new['number']}"
    for kind in ("functions", "types", "constants"):
        for name, was in old[kind].items():
            now = new[kind].get(name)
            if now != was:
                yield f"{name} was {was!r} and is {'gone' if now is None else repr(now)}"
    for name, was in old["structs"].items():
        now = new["structs"].get(name)
        if now is None:
            yield f"{name} is gone"
            continue
        count = len(was["members"])
        if now["members"][:count] != was["members"]:
            yield f"{name} had the members {was['members']} and has {now['members']}"
        elif now["size"] != was["size"] and was["members"][0][0] != "size":
            yield f"{name} had {was['size']} bytes and has {now['size']}, but does not say its size"
        if any(member[2] < was["size"] for member in now["members"][count:]):
            yield f"{name} has a new member where it had padding"
