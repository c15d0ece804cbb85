"""The options that scripts for the Python package graphpatch pass when they make a PatchableGraph."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import Module

from ._modules import below, is_script, why_opaque
from .errors import OptionWarning

# Options of which the user was warned already.
_warned: set[str] = set()

# Containers that are never called themselves.
_CONTAINERS = (torch.nn.ModuleList, torch.nn.ModuleDict, torch.nn.ParameterList, torch.nn.ParameterDict)


@dataclass(kw_only=True)
class ExtractionOptions:
    """The options of the Python package graphpatch. Nothing is compiled here: those that choose what is compiled have
    nothing to choose, and a warning says so once.

    Attributes:
        allow_unused_submodules: Whether the example run may leave modules uncalled; where it may not, ValueError names
            them. By default it may, unless ``error_on_compilation_failure`` is set.
        classes_to_skip_compiling: Without effect: what is inside a module can be seen without compiling it.
        copy_transformers_generation_config: Without effect: ``generate()`` is the module's own.
        custom_extraction_functions: By class of modules, a function that gets a module and returns a
            ``torch.fx.Graph``, which is run in the place of its forward. The PatchableGraph is then one of a copy of
            the module, with the same parameters. What such a function raises leaves the module as it is, unless one of
            the two options for failures is set.
        error_on_compilation_failure: Raise what a function of ``custom_extraction_functions`` raises.
        inside: ``"attention"`` shows the inside of ``scaled_dot_product_attention`` in all recorded runs: it is then a
            scope with ``scores``, ``probabilities`` and so on. Paths of patches may lead there without it.
        postprocessing_function: Called with each ``torch.fx.GraphModule`` that ``custom_extraction_functions`` made,
            and the module that it stands for.
        skip_compilation: Without effect.
        warn_on_compilation_failure: Warn of what such a function raises.
    """

    allow_unused_submodules: bool | None = None
    classes_to_skip_compiling: Collection[type[Module]] = field(default_factory=set)
    copy_transformers_generation_config: bool = True
    custom_extraction_functions: Mapping[type[Module], Callable[[Any], torch.fx.Graph]] = field(default_factory=dict)
    error_on_compilation_failure: bool = False
    inside: str | None = None
    postprocessing_function: Callable[[torch.fx.GraphModule, Any], None] | None = None
    skip_compilation: bool = False
    warn_on_compilation_failure: bool = False

    def __post_init__(self) -> None:
        if self.inside not in (None, "attention"):
            raise ValueError(f"inside={self.inside!r}: only 'attention' has an inside")
        if self.allow_unused_submodules is None:
            self.allow_unused_submodules = not self.error_on_compilation_failure
        if self.classes_to_skip_compiling:
            _warn("classes_to_skip_compiling", "nothing is compiled: the inside of these modules is seen, too")
        if self.skip_compilation:
            _warn("skip_compilation", "nothing is compiled: the inside of every module is seen, too")
        if not self.copy_transformers_generation_config:
            _warn("copy_transformers_generation_config", "generate() is the module's own")
        if self.postprocessing_function and not self.custom_extraction_functions:
            _warn("postprocessing_function", "without custom_extraction_functions there is no torch.fx.GraphModule")

    def prepared(self, module: Module) -> Module:
        """The module that these options ask for: itself, or a copy in which some of its modules are replaced by
        graphs."""
        graphs: dict[int, Any] = {}
        for path, part in below(module):
            function = self.custom_extraction_functions.get(type(part))
            if function is not None and id(part) not in graphs:
                made = self._graph_module(path, part, function)
                if made is not None:
                    graphs[id(part)] = made
        if not graphs:
            return module
        shared = {id(tensor): tensor for tensor in [*module.parameters(), *module.buffers()]}
        prepared: Module = copy.deepcopy(module, {**shared, **graphs})
        return prepared

    def _graph_module(self, path: str, part: Module, function: Callable[[Any], torch.fx.Graph]) -> Any:
        try:
            made = torch.fx.GraphModule(part, function(part))
        except Exception as why:
            if self.error_on_compilation_failure:
                raise
            if self.warn_on_compilation_failure:
                said = f"{path or type(part).__name__}: its custom extraction function failed: {why}"
                warnings.warn(said, OptionWarning, stacklevel=4)
            return None
        if self.postprocessing_function is not None:
            self.postprocessing_function(made, part)
            made.recompile()
        return made

    def check_used(self, module: Module, called: Collection[int]) -> None:
        """Raises ValueError if modules were not called that have to be. ``called`` holds the ids of the modules that
        were called."""
        if self.allow_unused_submodules:
            return
        unused = [path for path, part in below(module) if path and id(part) not in called and not _is_container(part)]
        if unused:
            raise ValueError(
                f"not called in the example run: {', '.join(unused)}; allow_unused_submodules=True permits that"
            )


def _is_container(module: Module) -> bool:
    return isinstance(module, _CONTAINERS) or type(module).forward is Module.forward


def _warn(option: str, why: str) -> None:
    if option not in _warned:
        _warned.add(option)
        warnings.warn(f"ExtractionOptions({option}=...) has no effect: {why}", OptionWarning, stacklevel=4)


class _Kind(type):
    """A metaclass for classes of the package graphpatch of which ``isinstance`` is asked. Each names a kind of
    modules."""

    def __instancecheck__(cls, module: Any) -> bool:
        return isinstance(module, Module) and cls.is_of(module)  # type: ignore[attr-defined]


class OpaqueGraphModule(metaclass=_Kind):
    """``isinstance`` says whether the inside of a module cannot be seen: it was compiled."""

    @staticmethod
    def is_of(module: Module) -> bool:
        return not is_script(module) and why_opaque(module) is not None


class CompiledGraphModule(metaclass=_Kind):
    """``isinstance`` says whether the inside of a module can be seen. Nothing is compiled for that here."""

    @staticmethod
    def is_of(module: Module) -> bool:
        return not OpaqueGraphModule.is_of(module)


class MultiplyInvokedModule(metaclass=_Kind):
    """The package graphpatch copies a module for each of its calls. Here no module is copied, and none is of this kind:
    the calls are ``linear``, ``linear_1`` ... in the graph."""

    @staticmethod
    def is_of(module: Module) -> bool:
        return False
