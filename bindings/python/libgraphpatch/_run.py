"""What a call of a module comes to: a run, where the module is a root, or a scope, inside a run. Its inputs and its
output are shown to the library and may come back patched.

Everywhere ``call`` is what the call comes down to: torch's own ``Module.__call__``, with the module in front.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import Module

from . import _dynamo
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
from ._library import check, lib
from ._modules import class_name, is_script, note, why_opaque
from ._raised import behind
from ._root import Root
from ._script import prepare, run_script, script_scope
from ._signature import Signature
from ._structure import changed, flatten
from ._thread import Frame, thread
from .errors import GraphPatchError

Call = Callable[..., Any]


def run(root: Root, module: Module, args: Any, kwargs: Any, call: Call) -> Any:
    """A call of a root."""
    if is_script(module):
        return run_script(module, args, kwargs, call)
    root.enter()
    try:
        return _open_run(root, module, args, kwargs, call)
    finally:
        root.leave()


def nested(root: Root, frame: Frame, module: Module, args: Any, kwargs: Any, call: Call) -> Any:
    """A root's module called in a run of another root: a scope there, and a run of its own inside it."""
    if frame.wants & GP_WANTS_RECORD and frame.root.session is not None:
        # Not under `graphpatch run`: there the script's own patches hold.
        note(
            root.session,
            f"{class_name(module)}: called in a run that another PatchableGraph records, where its patches do not hold",
        )
        return scope(frame, module, args, kwargs, call)
    return scope(frame, module, args, kwargs, lambda module, *args, **kwargs: run(root, module, args, kwargs, call))


def _open_run(root: Root, module: Module, args: Any, kwargs: Any, call: Call) -> Any:
    outer = thread.frame
    if root.why_opaque is None and getattr(module, "_compiled_call_impl", None) is not None:
        raise GraphPatchError(
            f"{class_name(module)}: it was compiled after its graph was recorded: {why_opaque(module)}"
        )
    _dynamo.install()
    if root.by_parameter:
        root.refresh()
    tree = root.tree
    with root.beginning:
        root.begun += 1
        check(lib.gp_run_open(root.session, tree.handle, thread.wants_at, thread.plan_at))
    wants = thread.wants.value
    if type(outer) is Frame:
        if not wants:  # it is a part of the outer run as all others
            return call(module, *args, **kwargs)
        note(
            outer.root.session,
            f"{class_name(module)}: has patches of its own PatchableGraph, and only those hold inside it",
        )
    if not wants:
        thread.frame = root.cold
        try:
            return call(module, *args, **kwargs)
        finally:
            thread.frame = outer
    thread.frame = Frame(root, module, None, wants, thread.plan.value) if wants & GP_WANTS_INSIDE else root.cold
    root.open.append(None)
    try:
        root.by_parameter = bool(wants & GP_WANTS_PARAMETERS)
        if wants & GP_WANTS_PARAMETERS:
            identities = tree.identities()
            check(lib.gp_run_parameters(identities, len(identities)))
        return _inside(module, tree.signature, wants, args, kwargs, call)
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
            thread.let_go()


# Frames of Python's stack from here on outwards are before the run.
BEGINNING = _open_run.__code__


def scope(frame: Frame, module: Module, args: Any, kwargs: Any, call: Call) -> Any:
    """A call of a module inside a run."""
    root = frame.root
    known = frame.scope(module)
    if is_script(module) and prepare(module):
        return script_scope(frame, known, module, args, kwargs, call)
    check(lib.gp_scope_open(known.address, thread.wants_at))
    wants = thread.wants.value
    try:
        if not wants & GP_WANTS_INSIDE:
            # Scripted modules tell of their calls themselves, and only the library can keep those apart.
            holders = known.attribute.modules()
            place = frame.wants >> GP_WANTS_PLACE_SHIFT
            # In a scope whose operations are counted, the library has to be told whose they are.
            told = frame.wants & GP_WANTS_OPERATIONS
            if wants & GP_WANTS_IGNORED and place and not told and holders is not None and not root.tree.scripted:
                frame.ignored[id(module)] = module, holders, known.attribute.name
            thread.frame = root.cold
            return call(module, *args, **kwargs)
        thread.frame = Frame(root, module, frame, wants, frame.plan)
        return _inside(module, known.signature, wants, args, kwargs, call)
    finally:
        thread.frame = frame
        lib.gp_scope_leave()


def _inside(module: Module, signature: Signature, wants: int, args: Any, kwargs: Any, call: Call) -> Any:
    """The call itself, between its inputs and its output."""
    if wants & GP_WANTS_INPUTS and (module._forward_pre_hooks or not signature.lacks(args, kwargs)):
        args, kwargs = _show_inputs(signature, args, kwargs)
    output = call(module, *args, **kwargs)
    if wants & GP_WANTS_OUTPUT:
        # Only this function holds it: it may be changed where it lies.
        owned = type(output) is torch.Tensor and sys.getrefcount(output) <= 2
        structure, tensors = flatten(output)
        check(lib.gp_scope_output(structure, _addresses(tensors), len(tensors), owned, thread.wants_at))
        if thread.wants.value:
            output = changed(output)
    return output


def _show_inputs(signature: Signature, args: Any, kwargs: Any) -> tuple[Any, Any]:
    values = signature.gather(args, kwargs)
    structure, tensors = flatten(values)
    check(lib.gp_scope_inputs(structure, _addresses(tensors), len(tensors), thread.wants_at))
    return signature.scatter(args, kwargs, values, changed(values)) if thread.wants.value else (args, kwargs)


def _addresses(tensors: list[torch.Tensor]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*[tensor._cdata for tensor in tensors])
