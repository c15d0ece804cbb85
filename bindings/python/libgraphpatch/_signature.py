"""The arguments of a module's ``forward``: their names, and the values of a call by these names."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

from torch.nn import Module

from ._forwards import original
from ._gone import OfObjects
from ._library import texts
from ._modules import is_script
from ._own_call import entry

_EMPTY = inspect.Parameter.empty
_VAR_POSITIONAL, _VAR_KEYWORD = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
_BY_POSITION = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD


class Arguments:
    """The arguments of a function by name. An argument that a call leaves out has its default, as in the call itself.
    Modules of one class share one of these, so nothing in it changes."""

    def __init__(self, parameters: list[inspect.Parameter]) -> None:
        self.names = [parameter.name for parameter in parameters]
        # The names as the library takes them.
        self.texts = texts(self.names)
        self.kinds = [parameter.kind for parameter in parameters]
        self.defaults = [parameter.default for parameter in parameters]
        self.positional = sum(kind in _BY_POSITION for kind in self.kinds)
        only = sum(kind is inspect.Parameter.POSITIONAL_ONLY for kind in self.kinds)
        # For the extension: names, defaults, how many arguments may be given by position, and whether a dict of further
        # ones follows. Only if every argument has a value of its own and can be given by name; else None.
        self.plain = None
        own = self.kinds[:-1] if self.kinds[-1:] == [_VAR_KEYWORD] else self.kinds
        if all(kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY) for kind in own):
            names = tuple(map(sys.intern, self.names[: len(own)]))
            self.plain = names, tuple(self.defaults[: len(own)]), self.positional, len(own) < len(self.kinds)
        # The arguments without a default.
        self.needed = [
            (index, name)
            for index, (name, kind) in enumerate(zip(self.names, self.kinds, strict=True))
            if self.defaults[index] is _EMPTY and kind not in (_VAR_POSITIONAL, _VAR_KEYWORD)
        ]
        # The arguments that a keyword may fill. In `forward(self, x, /, **rest)`, a keyword `x` belongs to `rest`.
        self.keywords = {
            name
            for name, kind in zip(self.names[only:], self.kinds[only:], strict=True)
            if kind not in (_VAR_POSITIONAL, _VAR_KEYWORD)
        }

    def lacks(self, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
        """Whether a call lacks an argument that has no default. Such a call fails."""
        return any(index >= len(args) and name not in kwargs for index, name in self.needed)

    def gather(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The value of each argument in a call, in order."""
        values: list[Any] = []
        for index, (name, kind) in enumerate(zip(self.names, self.kinds, strict=True)):
            if kind is _VAR_POSITIONAL:
                values.append(tuple(args[self.positional :]))
            elif kind is _VAR_KEYWORD:
                values.append({key: value for key, value in kwargs.items() if key not in self.keywords})
            elif index < self.positional and index < len(args):
                values.append(args[index])
            elif name in self.keywords and name in kwargs:
                values.append(kwargs[name])
            else:
                default = self.defaults[index]
                values.append(None if default is _EMPTY else default)
        return tuple(values)

    def scatter(
        self, args: Sequence[Any], kwargs: dict[str, Any], old: Sequence[Any], new: Sequence[Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the call with ``new`` in place of ``old``, the values that :meth:`gather` returned."""
        args, kwargs = list(args), dict(kwargs)
        for index, (name, kind, value) in enumerate(zip(self.names, self.kinds, new, strict=True)):
            if value is old[index]:
                continue
            if kind is _VAR_POSITIONAL:
                args[self.positional :] = value
            elif kind is _VAR_KEYWORD:
                kwargs.update(value)
            elif index < self.positional and index < len(args):
                args[index] = value
            elif name in self.keywords:
                kwargs[name] = value
            else:  # a default that is given by position only: with all that stand before it
                args += [*self.defaults[len(args) : index], value]
        return tuple(args), kwargs


class Signature:
    """The function that gets the arguments of a module's calls, as it was when this was made, and these arguments."""

    def __init__(self, module: Module) -> None:
        forward = entry(module)
        # The `forward` of a scripted module is a new object at each look-up, so it is not compared.
        self.forward = None if is_script(module) else _function(forward)
        self.arguments = _arguments(module, forward)

    @classmethod
    def unknown(cls) -> Signature:
        """The signature for a call whose arguments are not known."""
        return cls(_Anything())

    def fits(self, module: Module) -> bool:
        """Whether the module's forward is still the one that this was made of."""
        return self.forward is None or self.forward is _function(entry(module))


class _Anything(Module):  # type: ignore[misc]
    def forward(self, *args: Any) -> None:
        """Never called."""


def _arguments(module: Module, forward: Callable[..., Any]) -> Arguments:
    if is_script(module):  # the Python signature of a traced module has no names
        names = [argument.name for argument in module._c._get_method("forward").schema.arguments[1:]]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return Arguments([inspect.Parameter(name, kind, default=None) for name in names])
    function: Any = getattr(forward, "__func__", None)
    if type(forward) is not types.MethodType or type(function) is not types.FunctionType:
        return _looked_up(forward)
    if vars(function) or function.__kwdefaults__:  # perhaps a wrapper, or defaults that may be changed in place
        return _looked_up(forward)
    known = _known.get(function)
    if known is None or known[0] is not function.__code__ or known[1] is not function.__defaults__:
        known = function.__code__, function.__defaults__, _looked_up(forward)
        _known.put(function, known)
    arguments: Arguments = known[2]
    return arguments


# Modules of one class share their function, and inspecting it takes long.
_known = OfObjects()


def _looked_up(forward: Callable[..., Any]) -> Arguments:
    try:
        return Arguments(list(inspect.signature(forward).parameters.values()))
    except (TypeError, ValueError):  # built in
        return Arguments([inspect.Parameter("args", _VAR_POSITIONAL)])


def _function(method: Any) -> Any:
    return original(getattr(method, "__func__", method))
