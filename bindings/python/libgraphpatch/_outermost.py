"""Makes every module that the program calls outside of another module's call a root of the attached session. The
sitecustomize of `graphpatch run` uses this in Python programs.

A root is named after the module's class. A second living module of the same class is ``Model.forward#2``, and so on. A
model that is being traced, exported or compiled is left alone, since such a call computes no values.
"""

from __future__ import annotations

import json
import os
import weakref
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module

from . import _capture, _checkpoint, _distributed, _dynamo, _exported, _forward_scope, _module_call, _source
from ._absent import note_absent_parameters
from ._direct_forward import see_direct_calls
from ._dispatch_modes import mode_on
from ._gone import when_gone
from ._library import check, lib
from ._locks import new_lock
from ._modules import below, class_name, is_compiled, is_script, note, note_failure, why_opaque
from ._root import Root
from ._thread import Thread, thread
from ._under_way import is_in_kept_call, keep_calls
from ._watched import watched
from .errors import GraphPatchError

_tracing = torch._C._get_tracing_state
_is_compiling = torch.compiler.is_compiling

# By the module's id: a reference to it, and its root. Then, by name, the numbers that are in use.
_known: dict[int, tuple[weakref.ref[Module], Root]] = {}
_numbers: dict[str, set[int]] = {}
# Also taken by functions that the garbage collector calls.
_lock = new_lock()


class _Script:
    """Stands for the root of a scripted module, which reports its runs itself."""

    __slots__ = ("module",)

    def __init__(self, module: Module) -> None:
        self.module = weakref.ref(module)

    def is_direct(self, _module: Module) -> bool:
        return False


def install() -> None:
    """Begins to watch calls of modules, if a session is attached. If attaching has failed, the process's report says
    why."""
    try:
        _source.install(None)
    except GraphPatchError:
        return
    if _asks_for_compiled_values():
        Thread.compiled_values = True
        thread.only_taps = set()
    _dynamo.skip_package()
    _dynamo.before_the_first_compilation(_capture.install_first)
    _checkpoint.install()
    keep_calls()
    _module_call.watch_outermost(_root_of)


def uninstall() -> None:
    """Ends what :func:`install` began. Roots of the program's own stay watched, and runs that are under way are seen to
    their end."""
    with _lock:
        made = [root for _, root in _known.values()]
        _known.clear()
        _numbers.clear()
    watched.make_no_roots(made, _put_back)


def _put_back() -> None:
    _forward_scope.uninstall()
    _module_call.uninstall()


def _asks_for_compiled_values() -> bool:
    """Whether the command wants values as code of torch.compile computes them (`graphpatch bisect`)."""
    try:
        text = Path(os.environ["GRAPHPATCH_OPTIONS"]).read_text("utf-8")
        return bool(json.loads(text).get("compiled_values"))
    except (KeyError, OSError, ValueError):
        return False


def _root_of(module: Module) -> Any:
    """The root for a call of ``module``. None if torch is only tracing, exporting or compiling the call."""
    if _tracing() is not None or _is_compiling() or mode_on("FAKE", "PROXY", "FUNCTIONAL") is not None:
        return None
    if is_in_kept_call():
        return None
    _capture.install()
    if is_compiled(module) and why_opaque(module) is None:
        return None  # its call makes a call of the module that was compiled, which is the root
    if is_script(module):
        return _Script(module)
    try:
        known = _known.get(id(module))
        if known is not None and known[0]() is module and known[1].why_opaque == why_opaque(module):
            return known[1]
        with _lock:
            return _new(module)
    except Exception as error:  # a failure of this library must not end the program
        note_failure(class_name(module), "its calls are not seen", error)
        return None


def _new(module: Module) -> Root:
    key = id(module)
    known = _known.get(key)
    if known is not None and known[0]() is module:  # the module was compiled since
        name = known[1].name
    else:
        name = _name(module)
    base, _, number = name.partition("#")

    root = Root(module, name, None)
    _exported.prepare(root)
    if known is not None and known[0]() is module:
        reference = known[0]
    else:
        reference = weakref.ref(module)
        when_gone(module, _forget, reference, key, base, int(number or 1))
    _known[key] = reference, root
    _module_call.see_uncompiled_calls(root)
    see_direct_calls(root, _module_call.call_module)
    _note_vllms_compilation(root)
    note_absent_parameters(root)
    if _distributed.holds(module):
        # What is computed from this rank's part of a DTensor is known only where all operations are seen.
        check(lib.gp_session_record(None, True))
    if root.why_opaque:
        note(None, f"{name}: its inside is not visible: {root.why_opaque}")
    if any(kind.__name__ == "FullyShardedDataParallel" for _, part in below(module) for kind in type(part).__mro__):
        note(
            None,
            f"{name}: its parameters are sharded by FSDP; outside of the calls that gather them, a parameter's node is"
            " this rank's shard",
        )
    return root


def _forget(reference: weakref.ref[Module], key: int, name: str, number: int) -> None:
    """Forgets a module that is gone."""
    with _lock:
        _numbers[name].discard(number)
        if key in _known and _known[key][0] is reference:
            del _known[key]


def _note_vllms_compilation(root: Root) -> None:
    """Says where the inside of a model of vLLM's is compiled code that does not pass by torch.compile's own doors."""
    module = root.module()
    for _, part in below(module) if module is not None else ():
        kinds = {kind.__name__ for kind in type(part).__mro__}
        if "TorchCompileWithNoGuardsWrapper" in kinds and vars(part).get("do_not_compile") is False:
            note(
                None,
                f"{root.name}: vLLM has compiled {class_name(part)}: what is inside is not seen, but for some"
                " operations without scopes; start the server with --enforce-eager",
            )


def _name(module: Module) -> str:
    base = f"{_exported.class_of(module).rpartition('<locals>.')[2]}.forward"
    used = _numbers.setdefault(base, set())
    number = next(number for number in range(1, len(used) + 2) if number not in used)
    used.add(number)
    return base if number == 1 else f"{base}#{number}"
