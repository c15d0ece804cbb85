"""What is known of modules: of one whose calls are runs (a root), and of those below it, which are scopes when it calls
them."""

from __future__ import annotations

import ctypes
import inspect
import threading
import weakref
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch.nn import Module

from ._abi import encoded, lib, made, texts

if TYPE_CHECKING:
    from ._calls import Frame

_EMPTY = inspect.Parameter.empty
_VAR_POSITIONAL, _VAR_KEYWORD = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD


class Binder:
    """The arguments of a ``forward`` by name: those that a call leaves out have their defaults, as in the call
    itself."""

    def __init__(self, module: Module) -> None:
        forward = getattr(module, "_orig_mod", module).forward  # a compiled one takes what its module takes
        # A scripted module's is another object every time.
        self.forward = None if is_script(module) else _function(module.forward)
        parameters = _signature(module, forward)
        self.names = [parameter.name for parameter in parameters]
        self.kinds = [parameter.kind for parameter in parameters]
        self.defaults = [parameter.default for parameter in parameters]
        by_position = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
        self.positional = sum(kind in by_position for kind in self.kinds)
        only = sum(kind is inspect.Parameter.POSITIONAL_ONLY for kind in self.kinds)
        # Those without a default.
        self.needed = [(index, name) for index, (name, kind) in enumerate(zip(self.names, self.kinds))
                       if self.defaults[index] is _EMPTY and kind not in (_VAR_POSITIONAL, _VAR_KEYWORD)]
        # Those that a keyword may fill; `forward(self, x, /, **rest)` takes an `x` among the rest.
        self.keywords = {name for name, kind in zip(self.names[only:], self.kinds[only:])
                         if kind not in (_VAR_POSITIONAL, _VAR_KEYWORD)}

    def lacks(self, args: Sequence[Any], kwargs: Dict[str, Any]) -> bool:
        """Whether a call leaves out what has no default, and fails."""
        return any(index >= len(args) and name not in kwargs for index, name in self.needed)

    def fits(self, module: Module) -> bool:
        """Whether the module's forward is still the one that this was made of."""
        return self.forward is None or self.forward is _function(module.forward)

    def gather(self, args: Sequence[Any], kwargs: Dict[str, Any]) -> Tuple[Any, ...]:
        """The value of each argument in a call, in order."""
        values: List[Any] = []
        for index, (name, kind) in enumerate(zip(self.names, self.kinds)):
            if kind is _VAR_POSITIONAL:
                values.append(tuple(args[self.positional:]))
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

    def scatter(self, args: Sequence[Any], kwargs: Dict[str, Any], old: Sequence[Any],
                new: Sequence[Any]) -> Tuple[Any, Any]:
        """The call with ``new`` in the place of the values that :meth:`gather` gave."""
        args, kwargs = list(args), dict(kwargs)
        for index, (name, kind, value) in enumerate(zip(self.names, self.kinds, new)):
            if value is old[index]:
                continue
            if kind is _VAR_POSITIONAL:
                args[self.positional:] = value
            elif kind is _VAR_KEYWORD:
                kwargs.update(value)
            elif index < self.positional and index < len(args):
                args[index] = value
            elif name in self.keywords:
                kwargs[name] = value
            else:  # a default that is given by position only: with all that stand before it
                args += [*self.defaults[len(args):index], value]
        return tuple(args), kwargs


def _signature(module: Module, forward: Any) -> List[inspect.Parameter]:
    if is_script(module):  # what a traced one says of itself in Python has no names
        names = [argument.name for argument in module._c._get_method("forward").schema.arguments[1:]]
        return [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None) for name in names]
    try:
        return list(inspect.signature(forward).parameters.values())
    except (TypeError, ValueError):  # built in
        return [inspect.Parameter("args", _VAR_POSITIONAL)]


def _function(method: Any) -> Any:
    return getattr(method, "__func__", method)


def class_name(module: Module) -> str:
    kind = type(module)
    original = getattr(module, "original_name", None)  # a scripted one
    return original if isinstance(original, str) else f"{kind.__module__}.{kind.__qualname__}"


def is_script(module: Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule)


def compiled(module: Module) -> Optional[str]:
    """Why the inside of a module cannot be seen, if so."""
    if getattr(module, "_compiled_call_impl", None) is not None:
        return "it was compiled with module.compile()"
    if type(module).__name__ == "OptimizedModule" and hasattr(module, "_orig_mod"):
        return "it was compiled with torch.compile(); call the module itself (its _orig_mod) to see inside"
    return None


def note(session: Optional[int], text: str) -> None:
    """Something that a person should know."""
    lib.gp_session_note(session, encoded(text))


# Modules by id, each with the dict that holds it and its key there: another one may take its place.
Ignored = Dict[int, Tuple[Module, Dict[str, Module], str]]


class Scope:
    """A module as it is called from another one."""

    __slots__ = ("handle", "module", "binder", "place", "opaque", "__weakref__")

    def __init__(self, module: Module, place: "Place", path: str, absolute: str, opaque: bool) -> None:
        self.binder = Binder(module)
        names = texts(self.binder.names)
        self.module = weakref.ref(module)
        self.place = place
        self.opaque = opaque
        self.handle = made(lib.gp_scope_new, path.encode(), absolute.encode(), class_name(module).encode(), names,
                           len(names), opaque)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            lib.gp_scope_free(self.handle)

    def is_current(self, module: Module) -> bool:
        return (self.module() is module and self.place.holds(module) and self.binder.fits(module)
                and self.opaque == (compiled(module) is not None))


class Place:
    """Where a module hangs: its name in the module that holds it, which may get another one there."""

    __slots__ = ("holder", "name")

    def __init__(self, holder: Optional[Module], name: str) -> None:
        self.holder = None if holder is None else weakref.ref(holder)
        self.name = name

    def holds(self, module: Module) -> bool:
        if self.holder is None:  # it hangs nowhere
            return True
        holder = self.holder()
        if holder is None:
            return False
        held = holder._modules[self.name] if self.name in holder._modules else None
        return held is module or getattr(held, "_module", None) is module  # a PatchableGraph of it


    def modules(self) -> Optional[Dict[str, Any]]:
        """What holds it, if that is a plain dict."""
        holder = self.holder and self.holder()
        held = holder and holder._modules
        return held if isinstance(held, dict) else None


class Shape:
    """A root's module as it is made up at one time, and the library's picture of that."""

    def __init__(self, module: Module, name: str, opaque: bool) -> None:
        self.binder = Binder(module)
        self.parts = _parts(module)
        self.parameters = [(f"{path}.{name}" if path else name, (part, name))
                           for path, part, held in self.parts for name in held]
        self.scripted = any(is_script(below) for below in module.modules())
        names, paths = texts(self.binder.names), texts(path for path, _ in self.parameters)
        self.handle = made(lib.gp_root_new, name.encode(), class_name(module).encode(), names, len(names), paths,
                           len(paths), opaque)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            lib.gp_root_free(self.handle)

    def is_current(self, module: Module) -> bool:
        return self.binder.fits(module) and self.parts == _parts(module)

    def identities(self) -> Any:
        """The tensors that the parameters are now, as addresses in the order of ``parameters``."""
        tensors = [getattr(owner(), name, None) for _, (owner, name) in self.parameters]
        addresses = [tensor._cdata if isinstance(tensor, torch.Tensor) else None for tensor in tensors]
        return (ctypes.c_void_p * len(addresses))(*addresses)


class Cold:
    """Stands for a frame where nothing that happens matters to the run."""

    __slots__ = ()


class Root:
    """A module whose calls are runs, and what is known of the modules below it. Of a session of its own, or of the
    attached one (None)."""

    def __init__(self, module: Module, name: str, session: Optional[int]) -> None:
        self.module = weakref.ref(module)
        self.name = name
        self.session = session
        self.why_opaque = compiled(module)
        self.shape = Shape(module, name, self.why_opaque is not None)
        self.cold = Cold()
        self.scopes: Dict[Tuple[int, int], Scope] = {}
        # Calls that cannot matter, by the patches and the place among them that they come from.
        self.ignored: Dict[Tuple[int, int], Ignored] = {}
        # Patches change between runs, not while one begins; how many began so far.
        self.beginning = threading.RLock()
        self.begun = 0
        # Whether the last run asked for parameters: then the next one looks for new ones first.
        self.by_parameter = False
        self._lock = threading.RLock()
        self._members: Optional[weakref.WeakSet[Module]] = None
        # Runs that are under way and may be met on other threads (one element each); those and what may be run again.
        self.open: List[None] = []
        self.running = 0
        self.retired: List[Any] = []

    def refresh(self) -> None:
        """Takes notice of modules and parameters that are new, gone or elsewhere."""
        module = self.module()
        if module is None or self.shape.is_current(module):
            return
        shape = Shape(module, self.name, self.why_opaque is not None)  # the old one lives as long as its runs
        self._members = None
        self.shape = shape
        self.scopes, self.ignored = {}, {}  # they know of the old one's parameters

    def enter(self) -> None:
        """A run begins, or something that may be run again."""
        with self._lock:
            self.running += 1

    def leave(self) -> None:
        with self._lock:
            self.running -= 1
        if self.retired:
            self.sweep()

    def retire(self, held: List[Any]) -> None:
        """What patches needed that are gone: let go of as soon as no run is left that may use it."""
        with self._lock:
            self.retired += [living for living in held if living is not None]
        self.sweep()

    def sweep(self) -> None:
        with self._lock:
            if self.running == 0:
                self.ignored.clear()
                for key in [key for key, scope in list(self.scopes.items()) if scope.module() is None]:
                    self.scopes.pop(key, None)
                while self.retired:
                    self.retired.pop().close()

    def is_running(self, module: Module) -> bool:
        """Whether a run is under way on whatever thread, and ``module`` belongs to it."""
        if not self.open:
            return False
        root = self.module()
        if self._members is None and root is not None:
            self._members = weakref.WeakSet(root.modules())
        return self._members is not None and module in self._members

    def scope(self, frame: "Frame", module: Module) -> Scope:
        """The scope that ``module`` is when it is called in ``frame``."""
        key = id(frame.module), id(module)
        known = self.scopes.get(key)
        if known is not None and known.is_current(module):
            return known
        path, absolute, place = self._path(frame, module)
        why = compiled(module)
        if why:
            note(self.session, f"{absolute or class_name(module)}: its inside is not visible: {why}")
        scope = self.scopes[key] = Scope(module, place, path, absolute, why is not None)
        return scope

    def _path(self, frame: "Frame", module: Module) -> Tuple[str, str, Place]:
        """The module's attribute path below the nearest enclosing called module that has it, and below the root."""
        absolute, _ = _find(self.module(), module)
        outer: Optional[Frame] = frame
        while outer is not None:
            path, place = _find(outer.module, module)
            if path:
                return path, absolute or path, place
            outer = outer.outer
        return class_name(module).rsplit(".", 1)[-1], absolute or "", Place(None, "")


def _find(above: Optional[Module], module: Module) -> Tuple[str, Place]:
    """The attribute path of ``module`` below ``above``; empty where it has none."""
    if above is not None:
        for path, below in above.named_modules(remove_duplicate=False):
            if below is module and path:
                holder, _, name = path.rpartition(".")
                return path, Place(above.get_submodule(holder), name)
    return "", Place(None, "")


def _parts(module: Module) -> List[Tuple[str, weakref.ref, List[str]]]:
    """The module and all below it: attribute path, and the names of its own parameters and buffers."""
    parts = []
    for path, below in module.named_modules(remove_duplicate=False):
        if is_script(below):
            held = [name for name, _ in [*below.named_parameters(recurse=False), *below.named_buffers(recurse=False)]]
        else:
            held = [*below._parameters, *below._buffers]
        parts.append((path, weakref.ref(below), held))
    return parts
