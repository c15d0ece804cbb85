"""What a thread is in: its innermost open scope, and what patches on it have to say. Every thread has its own."""

from __future__ import annotations

import ctypes
import threading
import types

import torch
from torch.nn import Module

from ._header import GP_WANTS_OPERATIONS, GP_WANTS_PLACE_SHIFT
from ._modules import class_name, note, why_opaque
from ._native import native
from ._root import Cold, Ignored, Root
from ._scope import Attribute, Scope, find
from ._signature import Signature


class _Places:
    """What a frame holds."""

    __slots__ = ("cold", "ignored", "module", "outer", "plan", "root", "seen", "wants")


class Frame(_Places if native is None else native.FrameBase):  # type: ignore[misc]
    """One open scope on this thread. The extension makes them, too.

    Args:
        outer: The scope that it was called in; None for the root itself.
        wants: What is wanted of it, as bits of gp_wants.
        plan: Stands for the patches that the run began with; 0 without any.
    """

    __slots__ = ()

    root: Root
    module: Module
    outer: Frame | None
    cold: Cold
    wants: int
    plan: int
    # Calls from here that cannot matter, if there may be such.
    ignored: Ignored
    # Inside compiled code: whether operations are seen here, one by one, as torch.compile leaves this module's alone.
    seen: bool

    def __init__(self, root: Root, module: Module, outer: Frame | None, wants: int, plan: int) -> None:
        self.root, self.module, self.outer, self.wants, self.plan = root, module, outer, wants, plan
        self.cold, self.seen = root.cold, False
        if wants & GP_WANTS_OPERATIONS:
            self.ignored = {}
        else:
            self.ignored = root.ignored.setdefault((plan, wants >> GP_WANTS_PLACE_SHIFT), {})

    def scope(self, module: Module) -> Scope:
        """The scope that ``module`` is when it is called from here."""
        scopes = self.root.scopes
        key = id(self.module), id(module)
        known = scopes.get(key)
        if known is not None and known.is_current(module):
            return known
        path, absolute, attribute = self._path(module)
        why = why_opaque(module)
        if why:
            note(self.root.session, f"{absolute or class_name(module)}: its inside is not visible: {why}")
        scope = scopes[key] = Scope(module, attribute, path, absolute, why is not None)
        return scope

    def unknown(self, module: Module) -> Scope:
        """The same for a module of which nothing could be found out but its class."""
        return Scope(module, Attribute(None, ""), type(module).__name__, "", False, Signature.unknown())

    def _path(self, module: Module) -> tuple[str, str, Attribute]:
        """The module's attribute path below the nearest enclosing called module that has it, and below the root."""
        absolute, _ = find(self.root.module(), module)
        absolute = absolute or self.root.foreign_path(module)
        outer: Frame | None = self
        while outer is not None:
            path, attribute = find(outer.module, module)
            if path:
                return path, absolute or path, attribute
            outer = outer.outer
        return class_name(module).rsplit(".", 1)[-1], absolute or "", Attribute(None, "")


class Thread(threading.local):
    """The state of a thread."""

    # None outside of runs, and a root's ``cold`` where nothing below matters.
    frame: Frame | Cold | None = None if native is None else native.ThreadFrame()

    def __init__(self) -> None:
        # The root whose PatchableGraph is being called, where its module may have several.
        self.asked: Root | None = None
        # Where calls of the library answer, and the addresses of that.
        self.wants = ctypes.c_uint32()
        self.wants_at = ctypes.addressof(self.wants)
        self.plan = ctypes.c_uint64()
        self.plan_at = ctypes.addressof(self.plan)
        # Where compiled code began, and whether operations were hidden before.
        self.compiled: tuple[types.FrameType, bool] | None = None
        # The stack trace of the operation of a captured graph that is at work.
        self.called_from: str | None = None
        # The frame that called the root, where the extension has: what is further out is before the run.
        self.caller: types.FrameType | None = None
        # Whether a patch's function is at work, and what it calls is its own business.
        self.apart = False
        # What a patch's function raised, and what it returned: alive until the next one is called.
        self.error: BaseException | None = None
        self.held: torch.Tensor | None = None

    def in_compiled(self, began: tuple[types.FrameType, bool] | None) -> None:
        """Compiled code begins or ends; calls in it are left to Python."""
        self.compiled = began
        if native is not None:
            native.in_compiled(began is not None)

    def let_go(self) -> None:
        """The outermost run has ended: nobody asks for what functions left behind."""
        self.error = self.held = None


thread = Thread()
