"""What kind of value a value of the program's is, without asking the value.

``isinstance`` looks at an object's ``__class__`` where its class is another one. Proxies and lazy objects have a
property of that name, which makes what they stand for, or claims a class whose methods do not take them.
"""

from __future__ import annotations

import dataclasses
import types
from typing import Any, TypeGuard, TypeVar, overload

_A = TypeVar("_A")
_B = TypeVar("_B")
_C = TypeVar("_C")
_FIELDS = "__dataclass_fields__"
_NOTHING = object()


@overload
def is_a(value: object, kind: type[_A]) -> TypeGuard[_A]: ...
@overload
def is_a(value: object, kind: tuple[type[_A], type[_B]]) -> TypeGuard[_A | _B]: ...
@overload
def is_a(value: object, kind: tuple[type[_A], type[_B], type[_C]]) -> TypeGuard[_A | _B | _C]: ...
def is_a(value: object, kind: Any) -> bool:
    """Whether the value's own class is ``kind``, one of them, or below one."""
    return issubclass(type(value), kind)


def is_record(value: object) -> bool:
    """Whether it is an object of a dataclass that stores its fields as other objects do."""
    if not any(_FIELDS in vars(kind) for kind in type(value).__mro__):
        return False
    return bool(fields(value)) or not dataclasses.fields(type(value))  # type: ignore[arg-type]


def fields(value: object) -> dict[str, Any]:
    """What the object of a dataclass stores in its fields. A field that is computed where it is asked for, by a
    property or the like, counts as one that is not set."""
    found = {field.name: _stored(value, field.name) for field in dataclasses.fields(type(value))}  # type: ignore[arg-type]
    return {name: stored for name, stored in found.items() if stored is not _NOTHING}


def _stored(value: object, name: str) -> Any:
    kinds = type(value).__mro__
    of_class = next((vars(kind)[name] for kind in kinds if name in vars(kind)), _NOTHING)
    if isinstance(of_class, types.MemberDescriptorType):  # a slot
        try:
            return of_class.__get__(value)
        except AttributeError:
            return _NOTHING
    if of_class is not _NOTHING and hasattr(type(of_class), "__set__"):
        return _NOTHING
    try:
        held = object.__getattribute__(value, "__dict__")
    except AttributeError:
        held = {}
    if name in held:
        return held[name]
    return _NOTHING if hasattr(type(of_class), "__get__") else of_class
