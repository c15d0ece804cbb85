"""Tells ``torch.compile`` how to treat the functions of this package."""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ._code import nested
from ._dispatch_key import hide
from ._imports import after_import
from ._thread import Frame, thread


def skip(code: types.CodeType) -> None:
    """Has torch.compile skip ``code`` and start with the functions that it calls, as with torch's own frames around a
    ``forward``."""
    compiler = torch._C._dynamo.eval_frame
    if hasattr(compiler, "skip_code"):
        compiler.skip_code(code)
    else:
        action = compiler._FrameAction
        compiler.set_code_exec_strategy(code, compiler._FrameExecStrategy(action.SKIP, action.DEFAULT))


def skip_package() -> None:
    """Has torch.compile skip all functions of this package. It would otherwise compile any function that is called, and
    these are not the model's."""
    ours = [module for name, module in list(sys.modules.items()) if name.startswith(f"{__package__}.")]
    for module in ours:
        for code in _codes(vars(module), module.__name__):
            skip(code)


def _codes(names: dict[str, Any], module: str) -> Iterator[types.CodeType]:
    for value in list(names.values()):
        if isinstance(value, types.FunctionType) and value.__module__ == module:
            yield from nested(value.__code__)
        elif isinstance(value, type) and value.__module__ == module:
            yield from _codes(dict(vars(value)), module)


def show_operations(frame: Frame) -> None:
    """To be called when a scope begins in compiled code. If torch.compile does not compile the module (as some of
    torch's own), its operations are seen one by one; else the captured graph is seen instead."""
    check: Callable[[Any], bool] = sys.modules["torch._dynamo.trace_rules"].check
    frame.seen = thread.compiled is not None and not thread.compiled[1] and check(type(frame.module).forward)
    hide(not frame.seen)


def take_for_torchs_own(call: Any) -> None:
    """torch.compile looks only into modules whose ``__call__`` is torch's own. Makes it regard ``call`` as that."""

    def take(holder: types.ModuleType) -> None:
        if hasattr(holder, "unpatched_nn_module_call"):
            vars(holder)["unpatched_nn_module_call"] = call

    # The second module has imported the name from the first, so both are set.
    after_import("torch._dynamo.utils", take)
    if "torch._dynamo.variables.nn_module" in sys.modules:
        take(sys.modules["torch._dynamo.variables.nn_module"])


def trace_hooked_modules(is_ours: Callable[[Any], bool]) -> None:
    """Has torch.compile trace torch's own call of a module with hooks, where it would trace ``Module.__call__``, which
    is ours. A module without hooks needs none: torch.compile goes on with its ``forward``. To be called once."""
    holder: Any = importlib.import_module("torch._dynamo.variables.nn_module")
    variable, located = holder.UnspecializedNNModuleVariable, holder.record_nn_module_stack
    original = variable.call_function

    @functools.wraps(original)
    def call_function(self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
        module = self.value
        if isinstance(module, torch.fx.GraphModule) or not (
            _calls_more_than_forward(module) and is_ours(type(module).__call__)
        ):
            return original(self, tx, args, kwargs)
        where: Any = contextlib.nullcontext()
        if self.source:
            where = located(str(id(module)), self.get_nn_module_stack_source(), tx, module)
        with where:
            return self.call_method(tx, "_wrapped_call_impl", args, kwargs)

    variable.call_function = call_function


def _calls_more_than_forward(module: Any) -> bool:
    """Whether more than ``forward`` is called where the module is."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    everywhere = (f"_global{name}" for name in hooks)
    anywhere = torch.nn.modules.module
    return (
        "forward" in vars(module)
        or any(getattr(module, name, None) for name in hooks)
        or any(getattr(anywhere, name, None) for name in everywhere)
    )


def inline_as(call: Any, original: Callable[..., Any]) -> None:
    """Has torch.compile trace ``original`` where a model's code calls ``call`` by name, as ``super().__call__(x)`` and
    ``Module.__call__(self, x)`` do. It cannot trace ``call``: the graph would end there, and its guards would never
    hold again. Versions of torch without ``substitute_in_graph`` are left alone."""

    def traced(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return original(self, *args, **kwargs)

    def register(holder: types.ModuleType) -> None:
        substitute = getattr(holder, "substitute_in_graph", None)
        if substitute is not None:
            substitute(call, skip_signature_check=True)(traced)

    after_import("torch._dynamo.decorators", register)


# Every compilation goes through one of these functions: `torch.compile` calls the first one, which calls the second
# one. A strict `torch.export.export` calls only the second one, if this version of torch has it.
_COMPILERS = ("_compile", "compile_frame")


def before_the_first_compilation(action: Callable[[], None]) -> None:
    """Calls ``action`` before torch.compile compiles anything, if it ever does."""

    def wait(holder: types.ModuleType) -> None:
        for name in _COMPILERS:
            _before_first_call(holder, name, action)

    after_import("torch._dynamo.convert_frame", wait)


def _before_first_call(holder: types.ModuleType, name: str, action: Callable[[], None]) -> None:
    original: Any = getattr(holder, name, None)
    if original is None:
        return

    @functools.wraps(original)
    def first(*args: Any, **kwargs: Any) -> Any:
        if vars(holder)[name] is not first:
            return original(*args, **kwargs)
        vars(holder)[name] = original
        action()
        return vars(holder)[name](*args, **kwargs)

    vars(holder)[name] = first
