"""What can be known of a ``torch.nn.Module`` without calling it."""

from __future__ import annotations

import weakref

import torch
from torch.nn import Module

from ._library import Handle, lib


def class_name(module: Module) -> str:
    """The module's class as a person knows it."""
    kind = type(module)
    original = module.original_name if is_script(module) else None
    return original if isinstance(original, str) else f"{kind.__module__}.{kind.__qualname__}"


def is_script(module: Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule)


def why_opaque(module: Module) -> str | None:
    """Why the inside of a module cannot be seen, if so."""
    if module._compiled_call_impl is not None:
        return "it was compiled with module.compile()"
    if type(module).__name__ == "OptimizedModule" and hasattr(module, "_orig_mod"):
        return "it was compiled with torch.compile(); call the module itself (its _orig_mod) to see inside"
    return None


def parts(module: Module) -> list[tuple[str, weakref.ref[Module], list[str]]]:
    """The module and all below it: attribute path, and the names of its own parameters and buffers."""
    found = []
    for path, below in module.named_modules(remove_duplicate=False):
        if is_script(below):
            held = [name for name, _ in [*below.named_parameters(recurse=False), *below.named_buffers(recurse=False)]]
        else:
            held = [*below._parameters, *below._buffers]
        found.append((path, weakref.ref(below), held))
    return found


def held_tensor(module: Module | None, name: str) -> torch.Tensor | None:
    """A parameter or buffer of the module's own; no property of its class is asked."""
    if module is None:
        return None
    if is_script(module):
        value = getattr(module, name, None)
    else:
        value = module._parameters.get(name, module._buffers.get(name))
    return value if isinstance(value, torch.Tensor) else None


def note(session: Handle | None, text: str) -> None:
    """Adds to what a person should know of the session's runs; of the attached session's, if that is None."""
    lib.gp_session_note(session, text.encode())
