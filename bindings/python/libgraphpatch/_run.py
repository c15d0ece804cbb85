"""Calls of modules as runs, if the module is a root, or as scopes inside a run. The inputs and the output of a call are
shown to the library, which may patch them.

In all functions here, ``call`` is the function that makes the call in the end: as a rule torch's own
``Module.__call__``. Its first argument is the module.
"""

from __future__ import annotations

import sys
import sysconfig
import types
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import Module

from ._call_values import Settle, show_inputs, show_output
from ._classes import keep_classes
from ._dispatch_key import hide
from ._distributed import tell_adapter
from ._dynamo import show_operations
from ._generation import located
from ._greenlets import ignore_switches, see_switches
from ._header import (
    GP_WANTS_IGNORED,
    GP_WANTS_INPUTS,
    GP_WANTS_INSIDE,
    GP_WANTS_OPERATIONS,
    GP_WANTS_OUTPUT,
    GP_WANTS_PARAMETERS,
    GP_WANTS_PLACE_SHIFT,
    GP_WANTS_RECORD,
)
from ._hooked import HookedCall, is_hooked
from ._library import check, lib
from ._modules import class_name, is_script, note, why_opaque
from ._raised import raise_cause, spare
from ._root import Cold, Held, ModuleTree, Root
from ._scope import Scope
from ._script import prepared, run_script, script_scope
from ._signature import Signature
from ._thread import Answer, Frame, thread
from .errors import GraphPatchError

Call = Callable[..., Any]

# Whether ``sys.getrefcount`` tells how many references to an object exist. From Python 3.14 on, and without a GIL, some
# references are not counted. There a value counts as held by others, too, and is copied before it is changed.
COUNTS = sys.version_info < (3, 14) and not sysconfig.get_config_var("Py_GIL_DISABLED")


def run(root: Root, module: Module, args: Any, kwargs: Any, call: Call) -> Any:
    """Makes a call of a root."""
    if is_script(module):
        return run_script(module, args, kwargs, call)
    if not root.limits:
        output = _run(root, module, args, kwargs, call, False)
        if output is not _UNLOCATED:
            return output
    with located(root, module, args, kwargs):
        return _run(root, module, args, kwargs, call, True)


# What open_run() returns where no run has begun, as another thread has opened a block of limited patches meanwhile.
_UNLOCATED = object()


def _run(root: Root, module: Module, args: Any, kwargs: Any, call: Call, is_located: bool) -> Any:
    why = why_opaque(module)
    if root.why_opaque is None and why is not None:
        raise GraphPatchError(f"{class_name(module)}: it was compiled after its graph was recorded: {why}")

    def inside(frame: Frame | Cold, signature: Signature, wants: int) -> Any:
        if type(frame) is not Frame:
            return call(module, *args, **kwargs)
        return _inside(frame, module, signature, wants, args, kwargs, root.inner or call)

    return open_run(root, module, inside, lambda: call(module, *args, **kwargs), is_located)


def open_run(
    root: Root,
    module: Module,
    inside: Callable[[Frame | Cold, Signature, int], Any],
    apart: Callable[[], Any],
    is_located: bool = True,
) -> Any:
    """Opens a run of the root and calls ``inside`` in it, or calls ``apart`` if nothing is wanted of the run.

    Args:
        module: The root's module.
        is_located: Whether limited patches know which part of a text the call computes. If not, and if there are
            such patches, no run begins, and ``_UNLOCATED`` is returned.
    """
    root.enter()
    if "greenlet" in sys.modules:
        see_switches()
    try:
        return _open_run(root, module, inside, apart, is_located)
    finally:
        if "greenlet" in sys.modules:
            ignore_switches()
        root.leave()


# A run that begin() has begun: its root, what is wanted of it, the arguments of its module (as Signature and as
# Signature.plain), and the value that `thread.caller` had before.
Begun = tuple[Root, int, Signature | None, Any, types.FrameType | None]


def begin(root: Root, module: Module, caller: types.FrameType) -> Begun | None:
    """Begins a run that is not inside another one; end() ends it. If nothing is wanted of the run, none begins in the
    library, but end() has to be called nevertheless. None where run() has to make the call, as a block of limited
    patches was opened meanwhile.

    Args:
        caller: The Python frame that the module is called from.
    """
    before, tree = thread.caller, root.tree
    root.enter()
    if "greenlet" in sys.modules:
        see_switches()
    wants = 0
    try:
        answer = _begin_run(root, module, False)
        if answer is None:
            root.leave()
            return None
        wants, plan, tree, is_fresh = answer
        begun = root, wants, tree.signature, tree.signature.arguments.plain, before
        if not wants:
            thread.frame = root.cold
            lib.gp_run_decline(True)
            return begun
        thread.caller = caller
        thread.frame = _first_frame(root, module, wants, plan, tree)
        root.open.append(None)
    except BaseException:
        root.leave()
        raise
    try:
        _tell_parameters(root, module, tree, wants, is_fresh)
    except BaseException:
        end(begun)
        raise
    return begun


def end(begun: Begun) -> None:
    """Ends the run, when the call of its module has returned or raised."""
    root, wants, _, _, before = begun
    thread.frame = None
    if wants:
        thread.caller = before
        root.open.pop()
        lib.gp_run_end()
        thread.let_go()
    else:
        lib.gp_run_decline(False)
    if "greenlet" in sys.modules:
        ignore_switches()
    root.leave()


def failed(begun: Begun, error: BaseException) -> None:
    """Ends the run, when the call of its module has raised ``error``. Raises the cause of the error, if it has
    another."""
    try:
        if begun[1]:
            raise_cause(error)
    finally:
        end(begun)


def nested(root: Root, frame: Frame, module: Module, args: Any, kwargs: Any, call: Call) -> Any:
    """Makes a call of a root's module inside a run of another root. It is a scope of that run, and inside it a run of
    its own."""
    if frame.wants & GP_WANTS_RECORD and frame.root.session is not None:
        # This does not apply under `graphpatch run`, where the patches of the script hold as well.
        note(
            root.session,
            f"{class_name(module)}: called in a run that another PatchableGraph records, where its patches do not hold",
        )
        return scope(frame, module, args, kwargs, call)
    return scope(frame, module, args, kwargs, lambda module, *args, **kwargs: run(root, module, args, kwargs, call))


def _begin_run(root: Root, module: Module, is_located: bool) -> tuple[int, int, ModuleTree, bool] | None:
    """Begins a run in the library. Returns what is wanted of it, the number of its plan, its tree, and whether new
    modules were looked for. 0 is wanted also if the run could not begin. None: it has not begun, as it has to be
    located first."""
    answer, tree, is_fresh = Answer(), root.tree, root.by_parameter
    try:
        if is_fresh:
            root.refresh()
        tree = root.tree
        with root.beginning:
            if root.limits and not is_located:
                return None
            root.begun += 1
            check(lib.gp_run_open(root.session, tree.handle, answer.wants_at, answer.plan_at))
            if answer.plan:
                root.plans[answer.plan] = Held(root.changes, root.functions)
        thread.plan = answer.plan
        if answer.wants:
            keep_classes()
            tell_adapter()
        root.by_parameter = bool(answer.wants & GP_WANTS_PARAMETERS)
        return answer.wants, answer.plan, tree, is_fresh
    except Exception as error:
        if answer.wants:  # the run has begun, and nobody else would end it
            lib.gp_run_end()
        spare(root, module, error)
        return 0, 0, tree, is_fresh


def _open_run(
    root: Root,
    module: Module,
    inside: Callable[[Frame | Cold, Signature, int], Any],
    apart: Callable[[], Any],
    is_located: bool,
) -> Any:
    outer = thread.frame
    answer = _begin_run(root, module, is_located)
    if answer is None:
        return _UNLOCATED
    wants, plan, tree, is_fresh = answer
    if type(outer) is Frame:
        if not wants:  # an ordinary part of the outer run
            return apart()
        note(
            outer.root.session,
            f"{class_name(module)}: has patches of its own PatchableGraph, and only those hold inside it",
        )
    if not wants:
        thread.frame = root.cold
        lib.gp_run_decline(True)
        try:
            return apart()
        finally:
            thread.frame = outer
            lib.gp_run_decline(False)
    frame = thread.frame = _first_frame(root, module, wants, plan, tree)
    if thread.compiled is not None and type(frame) is Frame:
        show_operations(frame)
    root.open.append(None)
    try:
        _tell_parameters(root, module, tree, wants, is_fresh)
        return inside(frame, tree.signature, wants)
    except RuntimeError as error:
        raise_cause(error)
        raise
    finally:
        thread.frame = outer
        root.open.pop()
        lib.gp_run_end()
        if thread.compiled is not None:
            hide(type(outer) is not Frame or not outer.seen)
        if outer is None:
            thread.let_go()


def _first_frame(root: Root, module: Module, wants: int, plan: int, tree: ModuleTree) -> Frame | Cold:
    """The frame of a run that has begun."""
    if not wants & GP_WANTS_INSIDE:
        return root.cold
    frame = Frame(root, module, None, wants, plan)
    frame.tree = tree
    return frame


def _tell_parameters(root: Root, module: Module, tree: ModuleTree, wants: int, is_fresh: bool) -> None:
    """Tells the library which tensors the parameters are, if that is wanted.

    Args:
        is_fresh: Whether new modules were looked for since the run before.
    """
    if not wants & GP_WANTS_PARAMETERS:
        return
    try:
        identities = tree.identities() if is_fresh else root.identities(tree)
        check(lib.gp_run_parameters(identities, len(identities)))
    except Exception as error:
        spare(root, module, error)


# The code whose frame is where a run began. Frames further out on Python's stack do not belong to the run.
BEGINNING = _open_run.__code__


def scope(frame: Frame, module: Module, args: Any, kwargs: Any, call: Call) -> Any:
    """Makes a call of a module inside a run, in cases where a few more frames on the stack do not matter."""
    if prepared(module):
        return script_scope(frame, module, args, kwargs, call)
    wants, signature = enter(frame, module)
    try:
        return _inside(frame, module, signature, wants, args, kwargs, call)
    finally:
        leave(frame)


def enter(frame: Frame, module: Module) -> tuple[int, Signature | None]:
    """Opens the scope of a module that is called in the scope ``frame``. Returns what is wanted of its inputs and its
    output, and its signature."""
    thread.settle()
    root = frame.root
    try:
        known = frame.scope(module)
    except Exception as error:
        spare(root, module, error)
        known = frame.unknown(module)
    answer = Answer()
    check(lib.gp_scope_open(known.address, answer.wants_at))
    wants = answer.wants
    if wants & GP_WANTS_INSIDE:
        thread.frame = Frame(root, module, frame, wants, frame.plan)
        if thread.compiled is not None:
            show_operations(thread.frame)
        return wants, known.signature
    # In a scope whose operations are counted, the library has to know to which module they belong.
    if wants & GP_WANTS_IGNORED and not frame.wants & GP_WANTS_OPERATIONS:
        ignore(frame, module, known)
    thread.frame = root.cold
    return 0, None


def ignore(frame: Frame, module: Module, known: Scope) -> None:
    """Notes that no call of the module from this frame matters."""
    # Scripted modules report their calls to the library themselves, so only the library can ignore them.
    holders = known.attribute.modules()
    if frame.wants >> GP_WANTS_PLACE_SHIFT and holders is not None and not frame.tree.scripted:
        frame.ignored[id(module)] = module, holders, known.attribute.name


def leave(frame: Frame) -> None:
    """Closes the scope of the module that was called in ``frame``, when it has returned or raised."""
    thread.frame = frame
    lib.gp_scope_leave()
    thread.settle()
    if thread.compiled is not None:
        hide(not frame.seen)


def _inside(
    frame: Frame, module: Module, signature: Signature | None, wants: int, args: Any, kwargs: Any, call: Call
) -> Any:
    """Shows the inputs, makes the call, and shows the output. ``frame`` is the frame around it, or the root's own."""
    over: Settle = None
    if wants & GP_WANTS_INPUTS:
        args, kwargs, over = show_inputs(frame, module, signature, args, kwargs)
    try:
        if wants & GP_WANTS_OUTPUT and is_hooked(module):
            return hooked(frame, module, args, kwargs, call)
        output = call(module, *args, **kwargs)
    finally:
        if over is not None:
            over()
    if wants & GP_WANTS_OUTPUT:
        owned = COUNTS and type(output) is torch.Tensor and sys.getrefcount(output) <= 2
        output = show_output(frame, output, owned)
    return output


def hooked(frame: Frame, module: Module, args: Any, kwargs: Any, call: Call) -> Any:
    """Makes the call of a module with hooks. Its output is shown to the library before the hooks see it."""
    begun = begin_hooked(frame, module)
    try:
        output = call(module, *args, **kwargs)
    finally:
        begun.end()
    return begun.result(output)


def begin_hooked(frame: Frame, module: Module) -> HookedCall:
    """Begins such a call, which the extension may make."""
    return HookedCall(module, lambda output: show_output(frame, output, False))


def end_hooked(begun: HookedCall, *output: Any) -> Any:
    """Ends the call. If it has returned ``output``, and not raised, returns what is shown of it."""
    begun.end()
    return begun.result(*output) if output else None
