"""Module calls: the one place in torch through which all of them go, and what becomes of one inside a run.

``torch.nn.Module.__call__`` is replaced once, when the first root is watched; a call on a thread without a run then
costs one test more. Inside a run a call is a scope of the library's: its inputs and its output are shown and may come
back patched. A call that no patch can meet is left alone, with everything below it. No module is changed.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import torch
from torch.nn import Module

from ._abi import check, lib
from ._roots import Binder, Cold, Ignored, Root, Scope, class_name, compiled, is_script, note
from ._structure import changed, flatten
from .errors import GraphPatchError, PatchError

__all__ = ["Frame", "Root", "compiled", "is_script", "note", "thread", "unwatch", "watch", "watch_outermost"]

# Bits of gp_wants.
INPUTS, OUTPUT, INSIDE, PARAMETERS, RECORD, OPERATIONS, IGNORED = 1, 2, 4, 8, 16, 32, 64


class Frame:
    """One open scope on this thread."""

    __slots__ = ("root", "module", "outer", "wants", "plan", "ignored")

    def __init__(self, root: Root, module: Module, outer: "Optional[Frame]", wants: int, plan: int) -> None:
        self.root, self.module, self.outer, self.wants, self.plan = root, module, outer, wants, plan
        # Calls from here that cannot matter, if there may be such.
        self.ignored: Ignored = {} if wants & OPERATIONS else root.ignored.setdefault((plan, wants >> 16), {})


class _Thread(threading.local):
    """What this thread is in: a :class:`Frame`, None without a run, a root's ``cold`` where nothing below matters."""

    def __init__(self) -> None:
        self.frame: Any = None
        # The root whose PatchableGraph is being called, where its module may have several.
        self.asked: Optional[Root] = None
        self.wants = ctypes.c_uint32()
        self.wants_at = ctypes.addressof(self.wants)
        self.plan = ctypes.c_uint64()
        self.plan_at = ctypes.addressof(self.plan)
        # Where compiled code began, and in which frame.
        self.compiled: Optional[Tuple[Any, Frame]] = None
        # Whether a patch's function is at work, and what it calls is its own business.
        self.apart = False
        # What a patch's function raised, and what it returned: alive until the next one is called.
        self.error: Optional[BaseException] = None
        self.held: Any = None


thread = _Thread()
_IN_SCRIPT = Cold()

# Modules whose calls are runs, by id; only those of which something is wanted. The root that was watched last is the
# last.
_watched: Dict[int, Tuple[Root, ...]] = {}
# Whether a module that is called in a run may be a root itself.
_several = False
# Who makes a root of a module that is called outside of any run (`graphpatch run`).
_outermost: Optional[Callable[[Module], Optional[Root]]] = None
_original: Any = None
# Held for a moment only, also by what the garbage collector calls.
_lock = threading.RLock()


def watch(root: Root) -> None:
    """Calls of the root's module are runs from now on."""
    install()
    root.refresh()
    with _lock:
        key = id(root.module())
        _watched[key] = (*(known for known in _watched.get(key, ()) if known is not root), root)
        _count()


def unwatch(root: Root) -> None:
    with _lock:
        for key, roots in list(_watched.items()):
            if root in roots:
                left = tuple(known for known in roots if known is not root)
                if left:
                    _watched[key] = left
                else:
                    del _watched[key]
        _count()


def _count() -> None:
    global _several
    _several = len(_watched) > (_outermost is None)


def watch_outermost(make: Callable[[Module], Optional[Root]]) -> None:
    """Every module that is called outside of a run is a root, as ``make`` says."""
    global _outermost
    _outermost = make
    _count()
    install()


@contextlib.contextmanager
def asking(root: Root) -> Iterator[None]:
    """Calls of the root's module on this thread are its own runs, also where the module has other roots."""
    outer, thread.asked = thread.asked, root
    try:
        yield
    finally:
        thread.asked = outer


@contextlib.contextmanager
def in_a_run(key: object) -> Iterator[None]:
    """Calls of modules are looked at though no root may be watched; the run is open already."""
    with _lock:
        _watched[id(key)] = ()
        _count()
    try:
        yield
    finally:
        with _lock:
            del _watched[id(key)]
            _count()


def key() -> Any:
    """The dispatch key by which the library sees operations."""
    return torch._C._parse_dispatch_key("TESTING_ONLY_GenericMode")


def unseen() -> Any:
    """A context in which operations on this thread are no part of its run."""
    return torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(key()))


def install() -> None:
    """Puts :func:`_call` in the place of ``torch.nn.Module.__call__``, once."""
    global _original
    with _lock:
        if _original is not None:
            return
        _original = Module.__call__
        Module.__call__ = _call  # type: ignore[method-assign]
        _compile.skip(_call.__code__)
        _let_through()
        # torch.compile looks through modules whose __call__ is torch's own, which it takes ours for then.
        dynamo = sys.modules.get("torch._dynamo.variables.nn_module")
        for holder in (sys.modules.get("torch._dynamo.utils"), dynamo):
            if getattr(holder, "unpatched_nn_module_call", None) is _original:
                holder.unpatched_nn_module_call = _call  # type: ignore[union-attr]


def _let_through() -> None:
    """Operators of higher order are found by the highest key of all, ours, and then not found."""
    original = torch._ops._compute_keyset

    def without_ours(*args: Any) -> Any:
        return original(*args).remove(key())

    torch._ops._compute_keyset = without_ours


def _call(self: Module, *args: Any, **kwargs: Any) -> Any:
    if not _watched and _outermost is None:
        return _original(self, *args, **kwargs)
    frame = thread.frame
    if frame is None or _several:
        root = _root(self, frame)
        if root is not None:
            inside = type(frame) is Frame
            return _nested(root, frame, self, args, kwargs) if inside else _run(root, self, args, kwargs)
    if type(frame) is not Frame:
        return _original(self, *args, **kwargs)
    known = frame.ignored.get(id(self))
    if known is None or known[0] is not self or known[1].get(known[2]) is not self:
        return _scope(frame, self, args, kwargs, _original)
    thread.frame = frame.root.cold
    try:
        return _original(self, *args, **kwargs)
    finally:
        thread.frame = frame


def _root(module: Module, frame: Any) -> Optional[Root]:
    """The root of which a call of ``module`` in ``frame`` is a run, if any."""
    if torch.compiler.is_compiling():  # torch.compile looks through it to the module
        return None
    roots = _watched.get(id(module), ())
    if not roots:
        if frame is None and _outermost is not None:
            return _outermost(module)
        if frame is None and not thread.apart:
            _note_unseen(module)
        return None
    if any(root.module() is not module or _is_of(frame, root) for root in roots):
        return None  # the module calls itself
    asked = thread.asked
    if asked is not None and asked.module() is module:
        return asked if asked in roots else None
    for root in roots[:-1]:
        note(root.session, f"{class_name(module)}: a call of the module itself followed another PatchableGraph of it,"
                           " whose block was entered later; call the PatchableGraph that you mean")
    return roots[-1]


def _is_of(frame: Any, root: Root) -> bool:
    return frame is root.cold or type(frame) is Frame and frame.root is root


def _note_unseen(module: Module) -> None:
    """What should be a part of a run, or a run, and cannot be: said, not silent."""
    roots = [root for known in list(_watched.values()) for root in known]
    _compile.note_compiled(module, roots)
    for root in roots:
        if root.is_running(module):
            note(root.session, f"{class_name(module)}: called during a run, but on another thread, where nothing is"
                               " recorded or patched")


def _nested(root: Root, frame: Frame, module: Module, args: Any, kwargs: Any) -> Any:
    """A root's module called in a run of another root: a scope there, and a run of its own inside it."""
    if frame.wants & RECORD and frame.root.session is not None:  # under `graphpatch run` the script's own patches hold
        note(root.session, f"{class_name(module)}: called in a run that another PatchableGraph records, where its"
                           " patches do not hold")
        return _scope(frame, module, args, kwargs, _original)
    return _scope(frame, module, args, kwargs, lambda module, *args, **kwargs: _run(root, module, args, kwargs))


def _run(root: Root, module: Module, args: Any, kwargs: Any) -> Any:
    """A call of a root."""
    if is_script(module):  # it tells of its calls itself, and what it calls of Python's is inside them
        outer = thread.frame
        thread.frame = outer or _IN_SCRIPT
        try:
            return _script(module, args, kwargs)
        finally:
            thread.frame = outer
    root.enter()
    try:
        return _open_run(root, module, args, kwargs)
    finally:
        root.leave()


def _open_run(root: Root, module: Module, args: Any, kwargs: Any) -> Any:
    outer = thread.frame
    if root.why_opaque is None and getattr(module, "_compiled_call_impl", None) is not None:
        raise GraphPatchError(f"{class_name(module)}: it was compiled after its graph was recorded: {compiled(module)}")
    _compile.install()
    if root.by_parameter:
        root.refresh()
    shape = root.shape
    with root.beginning:
        root.begun += 1
        check(lib.gp_run_open(root.session, shape.handle, thread.wants_at, thread.plan_at))
    wants = thread.wants.value
    if type(outer) is Frame:
        if not wants:  # it is a part of the outer run as all others
            return _original(module, *args, **kwargs)
        note(outer.root.session, f"{class_name(module)}: has patches of its own PatchableGraph, and only those hold"
                                 " inside it")
    if not wants:
        thread.frame = root.cold
        try:
            return _original(module, *args, **kwargs)
        finally:
            thread.frame = outer
    thread.frame = Frame(root, module, None, wants, thread.plan.value) if wants & INSIDE else root.cold
    root.open.append(None)
    try:
        root.by_parameter = bool(wants & PARAMETERS)
        if wants & PARAMETERS:
            identities = shape.identities()
            check(lib.gp_run_parameters(identities, len(identities)))
        return _inside(module, shape.binder, wants, args, kwargs, _original)
    except RuntimeError as error:
        cause = behind(error)
        if cause is None:
            raise
        raise cause from None
    finally:
        thread.frame = outer
        root.open.pop()
        lib.gp_run_end()
        if outer is None:
            thread.error = thread.held = None


# Frames of the stack from here on outwards are before the run.
BEGINNING = _open_run.__code__

_PREFIX = "graphpatch: "


def behind(error: RuntimeError) -> Optional[BaseException]:
    """What stands behind an error that came by way of libtorch: what a function of the user's raised, or a patch that
    cannot be applied. None for an error of the model's own."""
    text = str(error)
    at = text.find(_PREFIX + "patch ")
    if at < 0 and type(error) is not PatchError:
        return None
    if "the function returned 1" in text and thread.error is not None:
        cause, thread.error = thread.error, None
        return cause
    if type(error) is PatchError:
        return None
    return PatchError(text[at + len(_PREFIX):].splitlines()[0])


def _scope(frame: Frame, module: Module, args: Any, kwargs: Any, call: Callable[..., Any]) -> Any:
    """A call of a module inside a run; ``call`` is what it comes down to."""
    root = frame.root
    scope = root.scope(frame, module)
    if is_script(module) and _operator("prepare")(module):
        return _script_scope(scope, module, args, kwargs)
    check(lib.gp_scope_open(scope.handle, thread.wants_at))
    wants = thread.wants.value
    try:
        if not wants & INSIDE:
            # Scripted modules tell of their calls themselves, and only the library can keep those apart.
            holders = scope.place.modules()
            if wants & IGNORED and frame.wants >> 16 and holders is not None and not root.shape.scripted:
                frame.ignored[id(module)] = module, holders, scope.place.name
            thread.frame = root.cold
            return call(module, *args, **kwargs)
        thread.frame = Frame(root, module, frame, wants, frame.plan)
        return _inside(module, scope.binder, wants, args, kwargs, call)
    finally:
        thread.frame = frame
        lib.gp_scope_leave()


def _inside(module: Module, binder: Binder, wants: int, args: Any, kwargs: Any, call: Callable[..., Any]) -> Any:
    """The call itself, between its inputs and its output."""
    if wants & INPUTS and (module._forward_pre_hooks or not binder.lacks(args, kwargs)):
        args, kwargs = _show_inputs(binder, args, kwargs)
    output = call(module, *args, **kwargs)
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


def _show_inputs(binder: Binder, args: Any, kwargs: Any) -> Tuple[Any, Any]:
    values = binder.gather(args, kwargs)
    structure, tensors = flatten(values)
    check(lib.gp_scope_inputs(structure, _addresses(tensors), len(tensors), thread.wants_at))
    return binder.scatter(args, kwargs, values, changed(values)) if thread.wants.value else (args, kwargs)


# --- scripted modules ------------------------------------------------------------------------------------------------


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
    thread.frame = frame.root.cold  # what it calls of Python's is inside TorchScript, which calls no modules of ours
    try:
        return _script(module, args, kwargs)
    finally:
        thread.frame = frame
        check(lib.gp_scope_unwind(depth))


from . import _compile  # noqa: E402  (it needs what is above)
