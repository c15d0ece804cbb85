"""Converts Python values for the library, to a text that describes their structure and to their tensors; and back.

The text is described at ``gp_scope_input`` in the C header. Dataclasses and similar objects (the outputs of
transformers' models) become dicts of their fields, and named tuples become tuples. All other objects are leaves, named
by their type.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import math
import types
from collections import OrderedDict, defaultdict
from enum import Enum
from typing import Any, TypeGuard

import torch
from torch import Tensor

from ._classes import in_class_of
from ._copied import Copied, CopiedDict, CopiedList
from ._header import gp_leaf
from ._kinds import fields, is_a, is_record
from ._library import check, lib, sized
from ._operators import operator

# Containers that are nested deeper are leaves, named by their type. This also ends values that contain themselves.
_DEEPEST = 32

# Containers with more plain values, and nothing else, are leaves, named by their type, so that a list of 200,000 token
# numbers, or of 64 lists of 1,024, does not become as many nodes.
_LONGEST = 1024
_WRITTEN = frozenset((bool, int, float, complex, bytes, type(None), torch.dtype, torch.device))
_PLAIN = frozenset((bool, int, float, complex, str, bytes, type(None)))


def flatten(value: Any) -> tuple[bytes, list[Tensor]]:
    """The structure of ``value``, and its tensors in order."""
    if type(value) is Tensor:
        return b"T", [value]
    if value is None:
        return b"N", []
    parts: list[str] = []
    tensors: list[Tensor] = []
    _flatten(value, parts, tensors, 0)
    return "".join(parts).encode(), tensors


def flatten_inputs(values: tuple[Any, ...]) -> tuple[bytes, list[Tensor]]:
    """The same of a call's inputs as one tuple, each of which is an element, however many there are."""
    parts, tensors = [f"({len(values)};"], list[Tensor]()
    for value in values:
        _flatten(value, parts, tensors, 1)
    return "".join(parts).encode(), tensors


def addresses(tensors: list[Tensor]) -> Any:
    """Where libtorch's tensors lie, for a call of the library."""
    return (ctypes.c_void_p * len(tensors))(*[tensor._cdata for tensor in tensors])


def _sized(text: str) -> str:
    return f"{len(text.encode())}:{text}"


def _fields(value: Any) -> list[tuple[str, Any]]:
    """Pairs of a name and a key: for a dict its keys, for a dataclass its fields that are set. Outputs of transformers'
    models leave out fields that are None."""
    if is_a(value, dict):
        return [(_key_text(key) or "", key) for key in _keys(value)]
    return [(name, name) for name in fields(value)]


def _keys(value: dict[Any, Any]) -> list[Any]:
    """The keys of a dict in their order, whatever its class makes of that where it is iterated over."""
    return list(_base(value).keys(value))


def _base(value: dict[Any, Any]) -> Any:
    return OrderedDict if is_a(value, OrderedDict) else dict


def _element(value: Any, key: Any) -> Any:
    return dict.__getitem__(value, key) if is_a(value, dict) else fields(value)[key]


def _is_dict(value: Any) -> TypeGuard[dict[Any, Any]]:
    """Whether the value is a dict whose keys can be used in a path: each has a name, and no two have the same one."""
    return is_a(value, dict) and not _nameless(value)


def _nameless(value: dict[Any, Any]) -> str:
    """Why the keys of a dict cannot be used in a path; empty if they can."""
    keys = _keys(value)
    names = {_key_text(key) for key in keys}
    if None in names:
        return "keys without names"
    return "" if len(names) == len(keys) else "keys that look the same"


def _clean(text: str) -> str:
    """A text that can cross to the library: one without NUL and lone surrogates."""
    return text.replace("\0", " ").encode(errors="replace").decode()


def _key_text(key: Any) -> str | None:
    """The name of a dict's key, as Python writes it: of a text, a number, None, a dtype, a member of an enumeration, or
    a tuple of these. Other keys have none: what Python writes for an object may be another text in the next run."""
    if is_a(key, str):
        return _clean(str(key)) or "''"
    if type(key) in _WRITTEN:
        return str(key)
    if is_a(key, Enum):
        name: Any = key._name_  # None for some combinations of flags
        return None if name is None else f"{type(key).__name__}.{name}"
    if type(key) is tuple:
        names = [repr(part) if is_a(part, str) else _key_text(part) for part in key]
        written = [_clean(name) for name in names if name is not None]
        return f"({', '.join(written)}{',' * (len(key) == 1)})" if len(written) == len(key) else None
    return None


def _elements(value: tuple[Any, ...] | list[Any]) -> list[Any]:
    """What is stored in a tuple or list, whatever its class makes of that where it is iterated over."""
    kind: Any = list if is_a(value, list) else tuple
    return list(kind.__iter__(value))


def _is_long(value: Any) -> bool:
    """Whether the value is a list, tuple or dict with many plain numbers, texts or None in it, and nothing else. Such a
    value is one leaf."""
    return _count_plain(value, 0) > _LONGEST


def _has_elements(value: Any, depth: int) -> TypeGuard[tuple[Any, ...] | list[Any]]:
    """Whether the elements of a tuple or list at this depth are looked into."""
    return depth < _DEEPEST and is_a(value, (tuple, list)) and not _is_long(value)


def _has_fields(value: Any, depth: int) -> bool:
    """The same of the values of a dict, and of a dataclass."""
    return depth < _DEEPEST and (is_record(value) or (_is_dict(value) and not _is_long(value)))


def _count_plain(value: Any, depth: int) -> float:
    """How many plain values there are in a list, tuple or dict; less than none if there is something else."""
    if depth == _DEEPEST:
        return -math.inf
    elements = list(_base(value).values(value)) if is_a(value, dict) else _elements(value)
    if _PLAIN.issuperset(map(type, elements)):
        return len(elements)
    count = 0.0
    for element in elements:
        if type(element) in _PLAIN:
            count += 1
        elif is_a(element, (tuple, list, dict)) and count >= 0:
            count += _count_plain(element, depth + 1)
        else:
            return -math.inf
    return count


def _flatten(value: Any, parts: list[str], tensors: list[Tensor], depth: int) -> None:
    if is_a(value, Tensor):
        parts.append("T")
        tensors.append(value)
    elif value is None:
        parts.append("N")
    elif is_a(value, bool):
        parts.append("B1;" if value else "B0;")
    elif type(value) is int and -(2**63) <= value < 2**63:
        parts.append(f"I{value};")
    elif type(value) is float:
        parts.append(f"F{value!r};")
    elif is_a(value, str):
        parts.append("S" + _sized(_clean(str.__getitem__(value, slice(200)))))
    elif _has_elements(value, depth):
        elements = _elements(value)
        parts.append(f"{'(' if is_a(value, tuple) else '['}{len(elements)};")
        for element in elements:
            _flatten(element, parts, tensors, depth + 1)
    elif _has_fields(value, depth):
        named = _fields(value)
        parts.append(f"{{{len(named)};")
        for name, key in named:
            parts.append(_sized(name))
            _flatten(_element(value, key), parts, tensors, depth + 1)
    else:
        parts.append("O" + _sized(_kind(value)))


def _kind(value: Any) -> str:
    """What the graph says of a value that is not looked into."""
    why = _nameless(value) if is_a(value, dict) else ""
    return f"{type(value).__name__} ({why})" if why else type(value).__name__


def tensor_at(address: int) -> Tensor:
    """Libtorch's tensor at an address that the library gave."""
    tensor: Tensor = operator("tensor_at")(address)
    return tensor


class _Leaves:
    """The leaves of the value that this thread showed last, one after the other."""

    def __init__(self) -> None:
        self.index = 0

    def next(self, value: Any) -> Any:
        """The leaf ``value`` as patches left it."""
        leaf = sized(gp_leaf)
        check(lib.gp_scope_leaf(self.index, ctypes.byref(leaf)))
        self.index += 1
        if not leaf.changed:
            return value
        if leaf.tensor:
            made = tensor_at(leaf.tensor)
            return in_class_of(value, made) if is_a(value, Tensor) else made
        if leaf.number == b"b":
            return bool(leaf.integer)
        return leaf.real if leaf.number == b"f" else leaf.integer


def changed(value: Any, copies: list[Copied] | None = None) -> Any:
    """``value`` with those leaves replaced that the patches changed, after it was shown on this thread. Containers that
    hold such a leaf are copied; what the caller holds stays as it is. ``copies`` gets those that can be written into,
    the inner ones first."""
    return _changed(value, _Leaves(), 0, [] if copies is None else copies)


def changed_elements(values: tuple[Any, ...], copies: list[Copied]) -> tuple[Any, ...]:
    """The same of what `flatten_inputs` was given."""
    leaves = _Leaves()
    return tuple(_changed(value, leaves, 1, copies) for value in values)


def _changed(value: Any, leaves: _Leaves, depth: int, copies: list[Copied]) -> Any:
    if _has_elements(value, depth):
        before = _elements(value)
        elements = [_changed(element, leaves, depth + 1, copies) for element in before]
        if all(new is old for new, old in zip(elements, before, strict=True)):
            return value
        rebuilt = _rebuilt(value, elements)
        if is_a(value, list):
            copies.append(CopiedList(value, rebuilt))
        return rebuilt
    if _has_fields(value, depth):
        return _changed_fields(value, leaves, depth, copies)
    return leaves.next(value)


def _rebuilt(value: Any, elements: list[Any]) -> Any:
    """A tuple or list of the same class as ``value``, with these elements and the same attributes. No function of the
    class is called: its constructor may take other arguments, and its methods may do other things."""
    kind = type(value)
    if kind is tuple or kind is list:
        return kind(elements)
    if is_a(value, list):
        made: Any = list.__new__(kind)
        list.extend(made, elements)
    else:
        try:
            made = tuple.__new__(kind, elements)
        except TypeError:  # a class that is written in C
            return kind(elements)
    _copy_attributes(value, made)
    return made


def _copy_attributes(value: Any, made: Any) -> None:
    if hasattr(value, "__dict__"):
        vars(made).update(vars(value))
    for kind in type(value).__mro__:
        slots = vars(kind).values() if "__slots__" in vars(kind) else ()
        for slot in slots:
            if isinstance(slot, types.MemberDescriptorType):
                with contextlib.suppress(AttributeError):  # it is not set
                    slot.__set__(made, slot.__get__(value))


def _changed_fields(value: Any, leaves: _Leaves, depth: int, copies: list[Copied]) -> Any:
    new: dict[Any, Any] = {}
    for _, key in _fields(value):
        old = _element(value, key)
        element = _changed(old, leaves, depth + 1, copies)
        if element is not old:
            new[key] = element
    if not new:
        return value
    if is_a(value, dict):
        copied = _copied_dict(value)
        for key, element in new.items():
            _set_item(copied, key, element)
        copies.append(CopiedDict(value, copied, _items, _set_item, _delete_item))
        return copied
    copied = _copied_record(value)
    for key, element in new.items():
        object.__setattr__(copied, key, element)  # works for frozen dataclasses, too
    copies.append(CopiedDict(value, copied, _attributes, object.__setattr__, object.__delattr__))
    return copied


def _copied_record(value: Any) -> Any:
    """An object of the same dataclass with the same attributes. Its constructor is not called, as it may compute fields
    again."""
    try:
        copied = object.__new__(type(value))
    except TypeError:  # a class with a base that is written in C
        return copy.copy(value)
    _copy_attributes(value, copied)
    return copied


def _items(value: dict[Any, Any]) -> dict[Any, Any]:
    return dict(dict.items(value))


def _set_item(value: dict[Any, Any], key: Any, element: Any) -> None:
    with contextlib.suppress(Exception):
        value[key] = element  # outputs of transformers keep it in two places
    if dict.get(value, key) is not element:  # the class does not let anyone set it, or stores another value
        dict.__setitem__(value, key, element)


def _delete_item(value: dict[Any, Any], key: Any) -> None:
    dict.__delitem__(value, key)


def _attributes(value: Any) -> dict[str, Any]:
    return {**getattr(value, "__dict__", {}), **fields(value)}


def _copied_dict(value: dict[Any, Any]) -> dict[Any, Any]:
    """A dict of the same class with the same items in the same order, and the same attributes. Neither the constructor
    nor a copying method of its class is called: those may order the items anew, as transformers' outputs do."""
    kind = type(value)
    if kind is dict:
        return dict(value)
    base = _base(value)
    copied: dict[Any, Any] = base.__new__(kind)
    if is_a(value, defaultdict) and is_a(copied, defaultdict):
        copied.default_factory = value.default_factory
    _copy_attributes(value, copied)
    for key, element in base.items(value):
        base.__setitem__(copied, key, element)
    return copied
