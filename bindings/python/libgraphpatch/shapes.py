"""The shapes of scopes and containers: dicts, tuples and lists whose elements are attributes, too."""

from __future__ import annotations

from typing import Any


def _element(shapes: Any, name: str) -> Any:
    number = name.removeprefix("sub_")
    if name.startswith("sub_") and number.isdigit() and int(number) < len(shapes):
        return shapes[int(number)]
    raise AttributeError(f"there is no shape {name!r} here; it has {', '.join(_names(shapes)) or 'none'}")


def _names(shapes: Any) -> list[str]:
    return [f"sub_{number}" for number in range(len(shapes))]


class DictShape(dict[str, Any]):
    """The shapes in a scope or a dict, by name: ``shape.add`` is ``shape["add"]``."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no shape {name!r} here; it has {', '.join(self) or 'none'}") from None

    def __dir__(self) -> list[str]:
        return [*self]


class TupleShape(tuple[Any, ...]):
    """The shapes in a tuple: ``shape.sub_0`` is ``shape[0]``."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return _element(self, name)

    def __dir__(self) -> list[str]:
        return _names(self)


class ListShape(list[Any]):
    """The shapes in a list: ``shape.sub_0`` is ``shape[0]``."""

    def __getattr__(self, name: str) -> Any:
        return _element(self, name)

    def __dir__(self) -> list[str]:
        return _names(self)
