"""Module calls: the one place in torch through which all of them go, and what becomes of one inside a run.

``torch.nn.Module.__call__`` is replaced once, when the first root is watched; a call on a thread without a run then costs one
test more. Inside a run a call is a scope of the library's: its inputs and its output are shown and may come back patched. A
call that no patch can meet is left alone, with everything below it. No module is changed.
"""

from __future__ import annotations

import ctypes
import inspect
import sys
import threading
import weakref
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch.nn import Module

from ._abi import check, encoded, lib, made, texts
from ._structure import changed, flatten

# Bits of gp_wants.
INPUTS, OUTPUT, INSIDE, PARAMETERS, RECORD, OPERATIONS, IGNORED = 1, 2, 4, 8, 16, 32, 64

_EMPTY = inspect.Parameter.empty


class Binder:
    """The arguments of a ``forward`` by name: those that a call leaves out have their defaults, as in the call itself."""

    def __init__(self, module: Module) -> None:
        forward = module.forward
        try:
            parameters = list(inspect.signature(forward).parameters.values())
        except (TypeError, ValueError):  # built in
            parameters = [inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)]
        self.names = [parameter.name for parameter in parameters]
        self.kinds = [parameter.kind for parameter in parameters]
        self.defaults = [parameter.default for parameter in parameters]
        self.flat = [flatten(d) if d is not _EMPTY else (b"N", []) for d in self.defaults]
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self.positional = sum(kind in positional for kind in self.kinds)

    def __call__(self, args: Sequence[Any], kwargs: Dict[str, Any], show: Callable[[int, Any], Any]) -> Tuple[Any, Any]:
        """The arguments after each was given to ``show`` with its index; defaults are only shown."""
        args, kwargs = list(args), dict(kwargs)
        given = len(args)
        rest: Dict[str, Any] = {}
        for index, (name, kind) in enumerate(zip(self.names, self.kinds)):
            if kind is inspect.Parameter.VAR_POSITIONAL:
                args[self.positional:] = show(index, tuple(args[self.positional:]))
            elif kind is inspect.Parameter.VAR_KEYWORD:
                rest = {key: value for key, value in kwargs.items() if key not in self.names}
                kwargs.update(show(index, rest))
            elif index < self.positional and index < given:
                args[index] = show(index, args[index])
            elif name in kwargs:
                kwargs[name] = show(index, kwargs[name])
            else:
                default = self.defaults[index]
                value = show(index, None if default is _EMPTY else default)
                if value is not default and default is not _EMPTY:
                    kwargs[name] = value
        return tuple(args), kwargs


class Scope:
    """A module as it is called from another one."""

    __slots__ = ("handle", "module", "binder", "__weakref__")

    def __init__(self, module: Module, binder: Binder, path: str, absolute: str, opaque: bool) -> None:
        names = texts(binder.names)
        self.module = weakref.ref(module)
        self.binder = binder
        self.handle = made(lib.gp_scope_new, path.encode(), absolute.encode(), _class_name(module).encode(), names,
                           len(names), opaque)

    def __del__(self) -> None:
        lib.gp_scope_free(self.handle)


def _class_name(module: Module) -> str:
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


class Root:
    """A module whose calls are runs, and what is known of the modules below it."""

    def __init__(self, module: Module, name: str, session: int) -> None:
        self.module = weakref.ref(module)
        self.session = session
        self.why_opaque = compiled(module)
        self.binder = Binder(module)
        self.parameters = _parameters(module)
        self.scripted = any(is_script(below) for below in module.modules())
        self.scopes: Dict[Tuple[int, int], Scope] = {}
        # Calls that cannot matter, by the patches and the place among them that they come from.
        self.ignored: Dict[Tuple[int, int], Dict[int, weakref.ref]] = {}
        self.running = 0
        self.retired: List[Any] = []
        names, paths = texts(self.binder.names), texts(path for path, _ in self.parameters)
        self.handle = made(lib.gp_root_new, name.encode(), _class_name(module).encode(), names, len(names), paths,
                           len(paths), self.why_opaque is not None)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            lib.gp_root_free(self.handle)

    def retire(self, held: List[Any]) -> None:
        """What patches needed that are gone: let go of as soon as no run is left that may use it."""
        with _lock:
            self.retired += [living for living in held if living is not None]
        self.sweep()

    def sweep(self) -> None:
        with _lock:
            if self.running == 0:
                self.ignored.clear()
                while self.retired:
                    self.retired.pop().close()

    def identities(self) -> Any:
        """The tensors that the parameters are now, as addresses in the order of ``parameters``."""
        tensors = [getattr(owner(), name, None) for _, (owner, name) in self.parameters]
        addresses = [tensor._cdata if isinstance(tensor, torch.Tensor) else None for tensor in tensors]
        return (ctypes.c_void_p * len(addresses))(*addresses)

    def scope(self, frame: "Frame", module: Module) -> Scope:
        """The scope that ``module`` is when it is called in ``frame``."""
        key = id(frame.module), id(module)
        known = self.scopes.get(key)
        if known is not None and known.module() is module:
            return known
        path, absolute = self._path(frame, module)
        why = compiled(module)
        if why:
            note(self.session, f"{absolute or _class_name(module)}: its inside is not visible: {why}")
        scope = self.scopes[key] = Scope(module, Binder(module), path, absolute, why is not None)
        return scope

    def _path(self, frame: "Frame", module: Module) -> Tuple[str, str]:
        """The module's attribute path below the nearest enclosing called module that has it, and below the root."""
        absolute = _find(self.module(), module)
        outer: Optional[Frame] = frame
        while outer is not None:
            path = _find(outer.module, module)
            if path:
                return path, absolute or path
            outer = outer.outer
        return _class_name(module).rsplit(".", 1)[-1], absolute or ""


def _find(above: Optional[Module], module: Module) -> Optional[str]:
    if above is None:
        return None
    return next((path for path, below in above.named_modules(remove_duplicate=False) if below is module), None)


def _parameters(module: Module) -> List[Tuple[str, Tuple[weakref.ref, str]]]:
    """All parameters and buffers: attribute path, and who holds it under which name."""
    found = []
    for path, below in module.named_modules(remove_duplicate=False):
        if is_script(below):
            held = [name for name, _ in [*below.named_parameters(recurse=False), *below.named_buffers(recurse=False)]]
        else:
            held = [*below._parameters, *below._buffers]
        found += [(f"{path}.{name}" if path else name, (weakref.ref(below), name)) for name in held]
    return found


class Frame:
    """One open scope on this thread."""

    __slots__ = ("root", "module", "outer", "wants", "plan")

    def __init__(self, root: Root, module: Module, outer: "Optional[Frame]", wants: int, plan: int) -> None:
        self.root, self.module, self.outer, self.wants, self.plan = root, module, outer, wants, plan


class _Thread(threading.local):
    """What this thread is in: None without a run, :data:`COLD` where nothing below matters."""

    def __init__(self) -> None:
        self.frame: Any = None
        self.wants = ctypes.c_uint32()
        self.wants_at = ctypes.addressof(self.wants)
        self.plan = ctypes.c_uint64()
        self.plan_at = ctypes.addressof(self.plan)
        # What a patch's function raised, and what it returned: alive until the next one is called.
        self.error: Optional[BaseException] = None
        self.held: Any = None


thread = _Thread()
COLD = object()

# Modules whose calls are runs, by id; only those of which something is wanted.
_watched: Dict[int, Root] = {}
# Who makes a root of a module that is called outside of any run (`graphpatch run`).
_outermost: Optional[Callable[[Module], Optional[Root]]] = None
_original: Any = None
_lock = threading.Lock()


def note(session: int, text: str) -> None:
    """Something that a person should know."""
    lib.gp_session_note(session, encoded(text))


def watch(root: Root) -> None:
    """Calls of the root's module are runs from now on."""
    install()
    with _lock:
        _watched[id(root.module())] = root


def unwatch(root: Root) -> None:
    with _lock:
        for key in [key for key, known in _watched.items() if known is root]:
            del _watched[key]


def watch_outermost(make: Callable[[Module], Optional[Root]]) -> None:
    """Every module that is called outside of a run is a root, as ``make`` says."""
    global _outermost
    _outermost = make
    install()


def install() -> None:
    """Puts :func:`_call` in the place of ``torch.nn.Module.__call__``, once."""
    global _original
    with _lock:
        if _original is not None:
            return
        _original = Module.__call__
        Module.__call__ = _call  # type: ignore[method-assign]
        # torch.compile looks through modules whose __call__ is torch's own, which it takes ours for then.
        dynamo = sys.modules.get("torch._dynamo.variables.nn_module")
        for holder in (sys.modules.get("torch._dynamo.utils"), dynamo):
            if getattr(holder, "unpatched_nn_module_call", None) is _original:
                holder.unpatched_nn_module_call = _call  # type: ignore[union-attr]


def _call(self: Module, *args: Any, **kwargs: Any) -> Any:
    if not _watched and _outermost is None:
        return _original(self, *args, **kwargs)
    frame = thread.frame
    if frame is None or len(_watched) > 1:
        root = _watched.get(id(self))
        if root is None and frame is None and _outermost is not None:
            root = _outermost(self)
        if root is not None and root.module() is self and (frame is None or frame is COLD or frame.root is not root):
            return _run(root, self, args, kwargs)
    if frame is None or frame is COLD:
        return _original(self, *args, **kwargs)
    return _scope(frame, self, args, kwargs)


def _run(root: Root, module: Module, args: Any, kwargs: Any) -> Any:
    """A call of a root."""
    if is_script(module):  # it tells of its calls itself
        return _script(module, args, kwargs)
    with _lock:
        root.running += 1
    try:
        return _open_run(root, module, args, kwargs)
    finally:
        with _lock:
            root.running -= 1
        if root.retired:
            root.sweep()


def _open_run(root: Root, module: Module, args: Any, kwargs: Any) -> Any:
    outer = thread.frame
    check(lib.gp_run_open(root.session, root.handle, thread.wants_at, thread.plan_at))
    wants = thread.wants.value
    if not wants:
        thread.frame = COLD
        try:
            return _original(module, *args, **kwargs)
        finally:
            thread.frame = outer
    thread.frame = Frame(root, module, None, wants, thread.plan.value)
    thread.error = None
    try:
        if wants & PARAMETERS:
            identities = root.identities()
            check(lib.gp_run_parameters(identities, len(identities)))
        return _inside(module, root.binder, wants, args, kwargs)
    except RuntimeError:
        error, thread.error = thread.error, None
        if error is not None:  # what a function of the user's raised, by way of libtorch
            raise error
        raise
    finally:
        thread.frame = outer
        lib.gp_run_end()


# Frames of the stack from here on outwards are before the run.
BEGINNING = _open_run.__code__


def _scope(frame: Frame, module: Module, args: Any, kwargs: Any) -> Any:
    """A call of a module inside a run."""
    root, place = frame.root, (frame.plan, frame.wants >> 16)
    if not frame.wants & OPERATIONS:
        known = root.ignored.get(place)
        if known is not None:
            reference = known.get(id(module))
            if reference is not None and reference() is module:
                thread.frame = COLD
                try:
                    return _original(module, *args, **kwargs)
                finally:
                    thread.frame = frame
    scope = root.scope(frame, module)
    if is_script(module) and _operator("prepare")(module):
        return _script_scope(scope, module, args, kwargs)
    check(lib.gp_scope_open(scope.handle, thread.wants_at))
    wants = thread.wants.value
    try:
        if not wants & INSIDE:
            # Scripted modules tell of their calls themselves, and only the library can keep those apart.
            if wants & IGNORED and place[1] and not root.scripted:
                root.ignored.setdefault(place, {})[id(module)] = scope.module
            thread.frame = COLD
            return _original(module, *args, **kwargs)
        thread.frame = Frame(root, module, frame, wants, frame.plan)
        return _inside(module, scope.binder, wants, args, kwargs)
    finally:
        thread.frame = frame
        lib.gp_scope_leave()


def _inside(module: Module, binder: Binder, wants: int, args: Any, kwargs: Any) -> Any:
    """The call itself, between its inputs and its output."""
    if wants & INPUTS:
        args, kwargs = binder(args, kwargs, _show_input)
    output = _original(module, *args, **kwargs)
    if wants & OUTPUT:
        # Only this function holds it: it may be changed where it lies.
        owned = type(output) is torch.Tensor and sys.getrefcount(output) <= 2
        structure, tensors = flatten(output)
        check(lib.gp_scope_output(structure, _addresses(tensors), len(tensors), owned, thread.wants_at))
        if thread.wants.value:
            output = changed(output)
    return output


def _addresses(tensors: List[torch.Tensor]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*[tensor._cdata for tensor in tensors])


def _show_input(index: int, value: Any) -> Any:
    structure, tensors = flatten(value)
    check(lib.gp_scope_input(index, structure, _addresses(tensors), len(tensors), thread.wants_at))
    return changed(value) if thread.wants.value else value


# --- scripted modules --------------------------------------------------------------------------------------------------


def _operator(name: str) -> Callable[..., Any]:
    return torch._C._jit_get_operation(f"graphpatch::{name}")[0]


def _script(module: Module, args: Any, kwargs: Any) -> Any:
    """Calls a scripted module so that it tells of what it does."""
    optimized = _operator("optimize")(False)
    try:
        _operator("prepare")(module)
        return _original(module, *args, **kwargs)
    finally:
        _operator("optimize")(optimized)


def _script_scope(scope: Scope, module: Module, args: Any, kwargs: Any) -> Any:
    depth = ctypes.c_uint32()
    frame = thread.frame
    check(lib.gp_scope_script(scope.handle, ctypes.byref(depth)))
    thread.frame = COLD  # what it calls of Python's is inside TorchScript, which calls no modules of ours
    try:
        return _script(module, args, kwargs)
    finally:
        thread.frame = frame
        check(lib.gp_scope_unwind(depth))
