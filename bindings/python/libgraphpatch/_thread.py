"""The state of a thread: its innermost open scope, and errors and results of patches on it. Every thread has its
own."""

from __future__ import annotations

import ctypes
import types
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch.nn import Module

from ._header import GP_WANTS_OPERATIONS, GP_WANTS_PARAMETERS, GP_WANTS_PLACE_SHIFT
from ._modules import class_name, note, why_opaque
from ._native import native
from ._root import Cold, Ignored, ModuleTree, Root
from ._scope import Attribute, Scope, find
from ._signature import Signature
from ._threads import local


class _FrameSlots:
    """The attributes of a frame."""

    __slots__ = ("cold", "ignored", "module", "outer", "plan", "root", "seen", "tree", "wants")

    root: Root
    # What the run began with. `root.tree` may be newer by now.
    tree: ModuleTree
    module: Module
    outer: Frame | None
    cold: Cold
    wants: int
    plan: int
    # Calls from here that cannot matter.
    ignored: Ignored
    # Inside compiled code: whether the operations of this scope are seen one by one, as torch.compile does not compile
    # its module.
    seen: bool


if TYPE_CHECKING or native is None:
    _Base = _FrameSlots
else:
    _Base = native.FrameBase


class Frame(_Base):
    """One open scope on this thread. The extension makes such objects, too.

    Args:
        outer: The frame of the scope in which the module was called; None for the root itself.
        wants: What is wanted of it, as bits of gp_wants.
        plan: The number of the plan that the run began with; 0 if it has no patches.
    """

    __slots__ = ()

    def __init__(self, root: Root, module: Module, outer: Frame | None, wants: int, plan: int) -> None:
        self.root, self.module, self.outer, self.wants, self.plan = root, module, outer, wants, plan
        self.cold, self.seen = root.cold, False
        self.tree = root.tree if outer is None else outer.tree
        if wants & GP_WANTS_OPERATIONS:
            self.ignored = {}
        else:
            self.ignored = root.ignored.setdefault((plan, wants >> GP_WANTS_PLACE_SHIFT), {})

    @property
    def by_parameter(self) -> bool:
        """Whether the run has to know which tensors the parameters are. `Root.by_parameter` is another run's answer by
        now, where runs of several threads are under way."""
        frame = self
        while frame.outer is not None:
            frame = frame.outer
        return bool(frame.wants & GP_WANTS_PARAMETERS)

    def scope(self, module: Module) -> Scope:
        """The scope of ``module`` when it is called from here."""
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
        """The same for a module of which only the class could be found out."""
        return Scope(module, Attribute(None, ""), type(module).__name__, "", False, Signature.unknown())

    def _path(self, module: Module) -> tuple[str, str, Attribute]:
        """The module's attribute path below the nearest enclosing called module that has it, and below the root."""
        root = self.root.module()
        below_root = find(root, module)
        absolute = below_root[0] or self.root.foreign_path(module)
        outer: Frame | None = self
        while outer is not None:
            path, attribute = below_root if outer.module is root else find(outer.module, module)
            if path:
                return path, absolute or path, attribute
            outer = outer.outer
        return class_name(module).rsplit(".", 1)[-1], absolute or "", Attribute(None, "")


class Answer(ctypes.Structure):
    """The variables into which one call of the library writes. A signal handler may run a model right after that call,
    so no two calls share them."""

    _fields_ = [("plan", ctypes.c_uint64), ("wants", ctypes.c_uint32)]

    @property
    def wants_at(self) -> int:
        return ctypes.addressof(self) + Answer.wants.offset

    @property
    def plan_at(self) -> int:
        return ctypes.addressof(self) + Answer.plan.offset


class Thread(local):
    """The state of a thread."""

    # The innermost open scope. None outside of runs, and a root's ``cold`` where nothing that happens matters.
    frame: Frame | Cold | None = None if native is None else native.ThreadFrame()
    # Whether the values of compiled code itself are asked for on all threads that begin from now on.
    compiled_values = False

    def __init__(self) -> None:
        # The root whose PatchableGraph is being called, where its module may have several.
        self.asked: Root | None = None
        # The number of the plan that the thread's last run began with.
        self.plan = 0
        # The frame in which compiled code began, and whether operations were hidden before.
        self.compiled: tuple[types.FrameType, bool] | None = None
        # While a captured graph is run operation by operation: the stack trace of the present operation.
        self.called_from: str | None = None
        # The frame that called the root, if the extension made the call. Frames further out do not belong to the run.
        self.caller: types.FrameType | None = None
        # While the values of compiled code itself are asked for: the classes of the modules whose code ran operation by
        # operation all the same.
        self.only_taps: set[str] | None = set() if self.compiled_values else None
        # Whether the function of a patch is running. Modules that it calls do not belong to the run.
        self.apart = False
        # What the function of a patch raised, and what it returned. Both are kept until the next function is called.
        self.error: BaseException | None = None
        self.held: torch.Tensor | None = None
        # The text of the last answer about a DTensor, while the adapter reads it.
        self.text = b""
        # Each settles the copies of containers that a call of the present run has returned with the originals.
        self.settling: list[Callable[[], None]] = []

    def in_compiled(self, began: tuple[types.FrameType, bool] | None) -> None:
        """Notes that compiled code begins or ends. The extension leaves calls in compiled code to Python."""
        self.compiled = began
        if native is not None:
            native.in_compiled(began is not None)

    def settle_later(self, settle: Callable[[], None]) -> None:
        """Has this called when a call of a module begins or ends, until the outermost run has ended."""
        self.settling.append(settle)
        if native is not None:
            native.settling(True)

    def settle(self) -> None:
        """Called when a call of a module begins or ends, if something is to be settled."""
        for settle in self.settling:
            settle()

    def let_go(self) -> None:
        """Called when the outermost run has ended. What functions of patches raised and returned is not needed any
        more."""
        self.error = self.held = None
        if self.settling:
            settling, self.settling = self.settling, []
            if native is not None:
                native.settling(False)
            for settle in settling:
                settle()


thread = Thread()
