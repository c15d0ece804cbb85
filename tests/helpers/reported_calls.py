"""A program that reports its modules' calls to the C ABI by ctypes: runs and scopes of eager and scripted modules.

Part of test_ctypes.py, which sets `gp`.
"""

import ctypes
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from ctypes import byref, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import torch

from abi import CALLBACK, SOURCE, Counts, Failure, Leaf, Library, texts
from reported_model import TREE, computed, equal, make_model

gp: Library


def structure(value: Any, tensors: list[Any]) -> str:
    """A value's structure in the text form of gp_scope_input. Its tensors are appended to `tensors`."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return "T"
    if isinstance(value, (bool, int, float)):
        return f"{'B' if isinstance(value, bool) else 'I' if isinstance(value, int) else 'F'}{value + 0!r};"
    if isinstance(value, str):
        return f"S{len(value.encode())}:{value}"
    if isinstance(value, dict):
        return f"{{{len(value)};" + "".join(f"{len(key)}:{key}{structure(of, tensors)}" for key, of in value.items())
    if isinstance(value, (tuple, list)):
        return f"{'(' if isinstance(value, tuple) else '['}{len(value)};" + "".join(
            structure(of, tensors) for of in value
        )
    name = type(value).__name__
    return "N" if value is None else f"O{len(name)}:{name}"


def with_leaves(value: Any, leaves: Iterator[Leaf]) -> Any:
    """A copy of the value with the leaves as patches left them."""
    if isinstance(value, dict):
        return {key: with_leaves(of, leaves) for key, of in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(with_leaves(of, leaves) for of in value)
    leaf = next(leaves)
    if not leaf.changed:
        return value
    if leaf.tensor:
        return operator("tensor_at")(leaf.tensor)
    return leaf.real if leaf.number == b"f" else bool(leaf.integer) if leaf.number == b"b" else leaf.integer


def count_leaves(value: Any) -> int:
    elements = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else None
    return 1 if elements is None else sum(map(count_leaves, elements))


def leaf_at(index: int) -> Leaf:
    leaf = Leaf(ctypes.sizeof(Leaf))
    gp.scope_leaf(index, byref(leaf))
    return leaf


def operator(name: str) -> Callable[..., Any]:
    """An operator that the adapter has registered with libtorch for use from Python."""
    return torch._C._jit_get_operation(f"graphpatch::{name}")[0]


# Bits of gp_wants.
INPUTS, OUTPUT, PARAMETERS, OPERATIONS = 1, 2, 8, 32


class Reporter:
    """Reports a module's calls as runs and those of the modules below it as scopes, with the values that are wanted."""

    def __init__(self, module: Any, session: Any) -> None:
        self.module, self.session, self.plan, self.wants = module, session, 0, c_uint32()
        self.parameters = [*module.named_parameters(), *module.named_buffers()]
        names = texts([name for name, _ in self.parameters])
        self.root = gp.new("root_new", "reported", type(module).__name__, texts(["x"]), 1, names, len(names), False)
        self.scopes: dict[Any, Any] = {}
        for path, below in module.named_modules():
            if path:
                self.scopes[below] = gp.new("scope_new", path, path, type(below).__name__, texts(["input"]), 1, False)

    def free(self) -> None:
        gp.root_free(self.root)
        for scope in self.scopes.values():
            gp.scope_free(scope)

    def show(self, call: str, value: Any, *more: Any) -> Any:
        """Shows the value to the library and returns it as the patches leave it."""
        tensors: list[Any] = []
        text = structure(value, tensors)
        addresses = (c_void_p * len(tensors))(*[tensor._cdata for tensor in tensors])
        first = [0] if call == "scope_input" else []
        changed = gp.number(call, *first, text, addresses, len(tensors), *more, kind=c_uint32)
        leaves = [leaf_at(index) for index in range(count_leaves(value))] if changed else []
        assert sum(leaf.changed for leaf in leaves) == changed
        return with_leaves(value, iter(leaves)) if changed else value

    def call_script(self, module: Any, *args: Any) -> Any:
        """Calls a scripted module. After `prepare`, the module reports the calls inside it by itself."""
        depth = gp.number("scope_script", self.scopes[module], kind=c_uint32)
        before = operator("optimize")(False)
        try:
            assert operator("prepare")(module)
            return module.forward(*args)
        finally:
            operator("optimize")(before)
            gp.scope_unwind(depth)

    def __call__(self, x: Any) -> Any:
        plan = c_uint64()
        gp.run_open(self.session, self.root, byref(self.wants), byref(plan))
        self.plan, wants = plan.value, self.wants.value
        if not wants:
            return self.module(x)
        original = torch.nn.Module.__call__

        def called(module: Any, *args: Any) -> Any:
            if module not in self.scopes:
                return original(module, *args)
            if isinstance(module, torch.jit.ScriptModule):
                return self.call_script(module, *args)
            inside = gp.number("scope_open", self.scopes[module], kind=c_uint32)
            try:
                if inside & INPUTS:
                    args = self.show("scope_inputs", args)
                output = original(module, *args)
                return self.show("scope_output", output, False) if inside & OUTPUT else output
            finally:
                gp.scope_leave()

        torch.nn.Module.__call__ = called
        try:
            if wants & PARAMETERS:
                identities = (c_void_p * len(self.parameters))(*[tensor._cdata for _, tensor in self.parameters])
                gp.run_parameters(identities, len(identities))
            x = self.show("scope_input", x) if wants & INPUTS else x
            y = self.module(x)
            return self.show("scope_output", y, True) if wants & OUTPUT else y
        finally:
            torch.nn.Module.__call__ = original
            gp.run_end()


def check_modules(folder: Path) -> None:
    gp.torch_load()
    session, model, x = gp.new("session_open"), make_model(), torch.randn(3, 4)
    reporter = Reporter(model, session)
    assert equal(reporter(x), model(x)) and reporter.wants.value == 0 and reporter.plan == 0, "nothing is wanted"
    check_graph(session, reporter, x, folder)
    with torch.no_grad():
        check_patches(session, reporter, x)
    check_torch_function(session, reporter, x)
    check_again(reporter, x)
    check_thrown(reporter, x)
    reporter.free()
    gp.session_close(session)


def check_graph(session: Any, reporter: Reporter, x: Any, folder: Path) -> None:
    asked: list[int] = []

    @SOURCE
    def source(user: int, frames: int) -> None:
        frame = sys._getframe(1)
        asked.append(user)
        gp.frames_add(frames, frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, "the line")

    bare = reporter.module(x)
    gp.session_source(session, source, 4711)
    gp.session_record(session, True)
    assert equal(reporter(x), bare) and asked and set(asked) == {4711}
    once = len(asked)
    assert equal(reporter(x), bare) and len(asked) == once, "nobody is asked again for what is known"
    gp.session_record(session, False)
    gp.session_source(session, SOURCE(), None)

    graphs = gp.new("session_graphs", session)
    tree = gp.text("graphs_tree", graphs, 0, None)
    assert tree == TREE, tree
    code = gp.text("graphs_code", graphs, 0, "first.linear")
    assert re.fullmatch(r'File ".*linear\.py", line \d+, in forward\n    the line\n', code), code
    assert "script = self.script(first" in gp.text("graphs_code", graphs, 0, None)
    graph = json.loads(gp.text("graphs_json", graphs, 0))
    gp.graphs_save(graphs, str(folder / "reported.json"))
    assert json.loads((folder / "reported.json").read_text(encoding="utf-8"))["graphs"] == [graph]
    gp.graphs_free(graphs)
    gp.session_note(session, "seen")
    assert gp.text("session_notes", session) == "seen"


def check_patches(session: Any, reporter: Reporter, x: Any) -> None:
    bare = computed(reporter.module, x)
    assert equal(bare, reporter.module(x)), "the same computation"
    for path in [
        "x",
        "first.input",
        "first.weight",
        "first.linear",
        "first.output",
        "script.input",
        "script.fc.input",
        "script.fc.weight",
        "script.fc.linear",
        "script.fc.output",
        "script.relu",
        "script.add",
        "script.output",
        "last.bias",
        "last.output",
        "output|y",
        "output|parts.sub_0",
        "output|parts.sub_1",
        "output|scale",
        "output|flag",
    ]:
        changes: list[Any] = [("zero", lambda v: type(v)(0) if isinstance(v, bool) else v * 0)]
        if path != "output|flag":
            changes += [("add:2", lambda v: v + 2), ("replace:3", lambda v: v * 0 + 3)]
        for text, change in changes:
            identity = gp.number("patch_add", session, f"{path}={text}")
            out, expected = reporter(x), computed(reporter.module, x, path, change)
            assert equal(out, expected), (path, text, out, expected)
            counts = Counts(ctypes.sizeof(Counts))
            gp.patch_get_counts(session, identity, byref(counts))
            assert (counts.matched, counts.applied, counts.failed) == (1, 1, 0), (path, text)
            assert reporter.plan and reporter.wants.value & 0xFFFF
            gp.patch_remove(session, identity)
            assert equal(reporter(x), bare) and reporter.plan == 0


def check_torch_function(session: Any, reporter: Reporter, x: Any) -> None:
    """Patches with a function that receives libtorch's own tensor."""
    held: list[Any] = [None]
    answers: list[Any] = []

    @CALLBACK
    def function(user: int, address: int, replacement: Any) -> int:
        status, make = answers.pop()
        held[0] = make(operator("tensor_at")(address))
        if held[0] is not None:
            replacement[0] = held[0]._cdata
        return status

    def register(path: str, index: str | None = None) -> int:
        made = gp.new("spec_new", path)
        if index:
            gp.spec_slice(made, index)
        gp.spec_custom_torch(made, function, None)
        identity = gp.number("patch_register", session, made)
        gp.spec_free(made)
        return identity

    model = reporter.module
    bare = model(x)["y"]
    for path in ["last.linear", "last.output", "output|y"]:
        identity = register(path)
        answers.append((0, lambda tensor: tensor * tensor))
        out = reporter(x)["y"]
        assert torch.equal(out, bare * bare)
        # Gradients flow through the function.
        given = torch.autograd.grad(out.sum(), model.first.weight)[0]
        assert torch.equal(given, torch.autograd.grad((model(x)["y"] ** 2).sum(), model.first.weight)[0])
        answers.append((0, lambda tensor: None))
        assert torch.equal(reporter(x)["y"], bare)
        answers.append((5, lambda tensor: None))
        try:
            reporter(x)
        except (Failure, RuntimeError) as error:
            assert "returned 5" in str(error), str(error)
        else:
            raise AssertionError("nothing was thrown")
        if path == "output|y":  # the last value: no later operation depends on its shape
            answers.append((0, lambda tensor: tensor[0]))
            assert torch.equal(reporter(x)["y"], bare[0])
        gp.patch_remove(session, identity)
        identity = register(path, "[1:, 0]")
        answers.append((0, lambda tensor: tensor + 1))
        expected = bare.clone()
        expected[1:, 0] += 1
        assert torch.equal(reporter(x)["y"], expected)
        gp.patch_remove(session, identity)
    identity = register("output|scale")
    answers.append((0, lambda tensor: tensor * 3))
    assert reporter(x)["scale"] == 1.5
    gp.patch_remove(session, identity)


def check_again(reporter: Reporter, x: Any) -> None:
    """Computes a part of a run again after the run has ended, on this thread and on another one."""
    other = gp.new("session_open")
    for text in ["first.relu=replace:1", "first.relu_1=replace:2"]:
        gp.number("patch_add", other, text)
    first = reporter.scopes[reporter.module.first]
    gp.run_open(other, reporter.root, byref(reporter.wants), None)
    gp.scope_open(first, byref(reporter.wants))
    assert torch.equal(torch.relu(x), torch.full_like(x, 1))
    snapshot = gp.new("run_snapshot")
    gp.run_end()
    gp.session_close(other)
    results = []

    def again() -> None:
        wants, plan = c_uint32(), c_uint64()
        gp.run_resume(snapshot, False, byref(wants), byref(plan))
        results.append((torch.relu(x), wants.value & OPERATIONS, plan.value))
        gp.run_end()

    again()
    thread = threading.Thread(target=again)
    thread.start()
    thread.join()
    assert len(results) == 2 and all(
        torch.equal(y, torch.full_like(x, 2)) and wants and plan for y, wants, plan in results
    )
    gp.snapshot_free(snapshot)


def check_thrown(reporter: Reporter, x: Any) -> None:
    """After an exception inside TorchScript, which leaves scopes open, the run continues in its root."""
    session, inner = gp.new("session_open"), reporter.module.script
    gp.number("patch_add", session, "relu=replace:7")
    gp.run_open(session, reporter.root, byref(reporter.wants), None)
    try:
        reporter.call_script(inner, torch.ones(2, 3))
    except RuntimeError as error:
        assert "shapes" in str(error), str(error)
    else:
        raise AssertionError("the input does not fit")
    assert torch.equal(torch.relu(x), torch.full_like(x, 7)), "the run is in its root"
    gp.run_end()
    gp.session_close(session)
