"""Facts about a ``torch.nn.Module`` that can be found out without calling it."""

from __future__ import annotations

import signal
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import Module

from ._handle import Handle
from ._library import lib


def class_name(module: Module) -> str:
    """The module's class as a person knows it."""
    kind = type(module)
    original = module.original_name if is_script(module) else None
    return original if isinstance(original, str) else f"{kind.__module__}.{kind.__qualname__}"


def is_script(module: Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule)


def is_compiled(module: Module) -> bool:
    """Whether a module is what ``torch.compile`` has made of another one."""
    return type(module).__name__ == "OptimizedModule" and "_orig_mod" in module._modules


def why_opaque(module: Module) -> str | None:
    """Why the inside of a module cannot be seen, if so."""
    if _sees_compiled:
        return None
    if module._compiled_call_impl is not None:
        return "it was compiled with module.compile(), by a torch.compile that libgraphpatch does not know"
    if is_compiled(module):
        return "it was compiled with torch.compile(), and this version of that is one that libgraphpatch does not know"
    return None


# Whether the inside of compiled modules can be seen.
_sees_compiled = False


def see_compiled() -> None:
    """From now on the inside of compiled modules can be seen."""
    global _sees_compiled
    _sees_compiled = True


def itself(child: Any) -> Any:
    """The module itself, if ``child`` is a PatchableGraph of it, or the module that ``torch.compile`` has made of it;
    else ``child``."""
    if not issubclass(type(child), Module):
        child = vars(child).get("_module", child)
    return child._modules["_orig_mod"] if is_compiled(child) else child


def below(module: Module) -> Iterator[tuple[str, Module]]:
    """The module and all below it with their paths, in the order of ``named_modules(remove_duplicate=False)``. No
    method of the modules is called, not even ``__hash__``."""
    return Walk(module).rest()


class Walk:
    """A walk over a module and all below it, as :func:`below` describes it, which may be left and taken up again. It
    keeps no module alive: those that are gone when it would come to them are left out."""

    def __init__(self, module: Module) -> None:
        # What is still to be visited, the next one last. A number stands behind everything in the module of that id.
        self._waiting: list[tuple[str, weakref.ref[Module]] | int] = [("", weakref.ref(module))]
        # The ids of the modules around the next one.
        self._around: set[int] = set()

    def rest(self) -> Iterator[tuple[str, Module]]:
        """Goes on where the walk was left."""
        waiting, around = self._waiting, self._around
        while waiting:
            next_one = waiting.pop()
            if isinstance(next_one, int):
                around.discard(next_one)
                continue
            path, reference = next_one
            here = reference()
            if here is None or id(here) in around:
                continue
            held = here._modules
            if len(held):  # most modules hold none, and a model may have very many
                around.add(id(here))
                waiting.append(id(here))
                inside = [(name, itself(child)) for name, child in held.items() if child is not None]
                waiting += [(f"{path}.{name}" if path else name, weakref.ref(child)) for name, child in inside[::-1]]
            yield path, here


def at(module: Module, path: str) -> Module | None:
    """The module at an attribute path below ``module``, if there is one."""
    here: Module | None = module
    for name in path.split(".") if path else []:
        if here is None or name not in here._modules:
            return None
        child = here._modules[name]
        here = None if child is None else itself(child)
    return here


def parts(module: Module) -> list[tuple[str, weakref.ref[Module], list[str]]]:
    """The module and all below it: for each its attribute path, and the names of its own parameters and buffers."""
    found = []
    for path, part in below(module):
        if is_script(part):
            held = [name for name, _ in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]]
        else:
            held = [*part._parameters, *part._buffers]
        found.append((path, weakref.ref(part), held))
    return found


def held_tensor(module: Module | None, name: str) -> torch.Tensor | None:
    """A parameter or buffer of the module's own. It is looked up without evaluating properties of the class."""
    if module is None:
        return None
    if is_script(module):
        value = getattr(module, name, None)
    else:
        value = module._parameters.get(name, module._buffers.get(name))
    return value if isinstance(value, torch.Tensor) else None


def note_failure(whose: str, what: str, error: Exception) -> None:
    """Adds a note to the attached session: libgraphpatch itself has failed, with this consequence (``what``).

    An exception that a signal handler of the program has raised is not such a failure. It is raised again.
    """
    if is_handlers(error):
        try:
            raise error
        finally:
            del error  # the exception would hold itself by this frame
    text = " ".join(f"{type(error).__name__}: {error}".split())
    note(None, f"{whose}: {what}, as libgraphpatch failed: {text}")


def is_handlers(error: Exception) -> bool:
    """Whether a signal handler of the program has raised the error. Python may run handlers inside of our functions."""
    handlers = []
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if callable(handler):
            function = getattr(handler, "__func__", handler)
            handlers.append(getattr(function, "__code__", None) or getattr(type(handler).__call__, "__code__", None))
    trace = error.__traceback__
    while trace is not None:
        if any(trace.tb_frame.f_code is code for code in handlers):
            return True
        trace = trace.tb_next
    return False


def note(session: Handle | None, text: str) -> None:
    """Adds a note for the user to the session, or to the attached session if ``session`` is None."""
    lib.gp_session_note(session, text.encode())
