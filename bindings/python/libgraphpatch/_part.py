"""Calls of a module below a root by another method of the root's module than ``forward``, while no run is open.
Examples are ``model.encode(x)``, and the encoder that ``generate()`` calls first.

Such a call is a run of the root that contains only this call, under the name that the call has in the root's own runs.
Whatever else the method does belongs to no run. If the program itself calls a module below the root
(``model.layers[0](x)``), that is no run either.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

from torch.nn import Module

from ._modules import at, below
from ._root import Cold, Root
from ._run import enter, leave, open_run, scope
from ._scope import Scope, find
from ._signature import Signature
from ._thread import Frame, thread


def in_method_of(module: Module | None) -> bool:
    """Whether this thread runs a method of the module's class other than ``forward``. A ``forward`` that is not a run
    is left alone."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        code = frame.f_code
        if not code.co_argcount or not _has(type(module), code.co_name, code):
            continue
        if frame.f_locals.get(code.co_varnames[0]) is module:
            return code.co_name != "forward"
    return False


def _has(kind: type, name: str, code: types.CodeType) -> bool:
    """Whether ``code`` is the code of the class's method ``name``, which may be decorated."""
    for holder in kind.__mro__[:-1]:
        method = vars(holder).get(name)
        if method is not None and getattr(inspect.unwrap(method), "__code__", None) is code:
            return holder is not Module
    return False


def run_part(root: Root, module: Module, args: Any, kwargs: Any, call: Callable[..., Any]) -> Any:
    """Makes a call of ``module``, which lies below the root's module, a run of the root."""
    above = root.module()

    def apart() -> Any:
        return call(module, *args, **kwargs)

    if above is None:
        return apart()
    chain, called = _callers(root, above, module)

    def inside(frame: Frame | Cold, _signature: Signature, _wants: int) -> Any:
        return _inside(frame, chain, module if called else None, apart, args, kwargs, call)

    return open_run(root, above, inside, apart)


def _inside(
    frame: Frame | Cold,
    chain: list[Module],
    module: Module | None,
    apart: Callable[[], Any],
    args: Any,
    kwargs: Any,
    call: Callable[..., Any],
) -> Any:
    """Makes the call inside the scopes of ``chain``. The call is a scope itself, unless ``module`` is None."""
    if type(frame) is not Frame:
        return apart()
    if not chain:
        return apart() if module is None else scope(frame, module, args, kwargs, call)
    enter(frame, chain[0])
    try:
        inner = thread.frame
        return apart() if inner is None else _inside(inner, chain[1:], module, apart, args, kwargs, call)
    finally:
        leave(frame)


def _callers(root: Root, above: Module, module: Module) -> tuple[list[Module], bool]:
    """The modules through which ``module`` is called in the root's own runs, the outermost first; and whether
    ``module`` itself is called there. If only its ``forward`` is, the calls in it belong to the module that calls that
    ``forward``."""
    callers = {called: (caller, known) for (caller, called), known in reversed([*root.scopes.items()])}
    own = id(module) in callers
    nearest = module if own else _nearest(above, module, callers)
    chain: list[Module] = []
    at = id(nearest)
    while at in callers and len(chain) < len(callers):
        at, known = callers[at]
        caller = known.module()
        if caller is None:
            break
        chain.append(caller)
    chain.reverse()
    if own:
        return chain[:-1], True
    inner = {id(part) for _, part in below(module)}
    return chain, not any(called in inner and caller not in inner for called, (caller, _) in callers.items())


def _nearest(above: Module, module: Module, callers: dict[int, tuple[int, Scope]]) -> Module | None:
    """The innermost module on the way from ``above`` to ``module`` that is called."""
    path, _ = find(above, module)
    while "." in path:
        path = path.rpartition(".")[0]
        holder = at(above, path)
        if id(holder) in callers:
            return holder
    return None
