"""The C ABI from plain Python, without a binding: every call that the header declares, by ctypes.

The file is a test and the program that the test runs: a crash there is a failure here.

    python test_ctypes.py LIBRARY HEADER FOLDER
"""

import ctypes
import gc
import re
import sys
import threading
import weakref
from ctypes import byref, c_bool, c_char_p, c_int64, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # under pytest, pytest.ini sets the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from abi import CALLBACK, RELEASE, Counts, Library, ManagedTensor, Node, refused, texts


def test_every_call_by_ctypes(tmp_path: Path) -> None:
    from support import GRAPHPATCH, ROOT, run_process

    library, header = GRAPHPATCH.with_name("libgraphpatch.so"), ROOT / "include" / "graphpatch.h"
    result = run_process([sys.executable, "-X", "faulthandler", __file__, library, header, tmp_path])
    assert result.code == 0, result.stderr
    assert result.stdout == "all as it must be\n"


gp: Library


# --- DLPack ----------------------------------------------------------------------------------------------------------

python = ctypes.pythonapi
python.PyCapsule_GetPointer.restype, python.PyCapsule_GetPointer.argtypes = c_void_p, [ctypes.py_object, c_char_p]
python.PyCapsule_SetName.argtypes = [ctypes.py_object, c_char_p]
python.PyCapsule_New.restype, python.PyCapsule_New.argtypes = ctypes.py_object, [c_void_p, c_char_p, c_void_p]
NAME, USED = b"dltensor_versioned", b"used_dltensor_versioned"


def address(capsule: Any, hand_over: bool = False) -> int:
    pointer = python.PyCapsule_GetPointer(capsule, NAME)
    if hand_over:
        python.PyCapsule_SetName(capsule, USED)
    return pointer


def capsule_of(array: Any) -> Any:
    return array.__dlpack__(max_version=(1, 0))


def value_of(array: Any) -> Any:
    """A gp_value made from a borrowed array of any library."""
    capsule = capsule_of(array)
    return gp.new("value_dlpack", address(capsule), False)


class Lent:
    """A managed tensor as something that numpy and torch can take over."""

    def __init__(self, managed: c_void_p) -> None:
        self.capsule = python.PyCapsule_New(managed, NAME, None)

    def __dlpack__(self, **_: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def shown(pointer: int) -> Any:
    """A copy of a borrowed float32 tensor."""
    import numpy as np

    tensor = ManagedTensor.from_address(pointer).tensor
    assert (tensor.device.kind, tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes) == (1, 2, 32, 1)
    shape = tuple(tensor.shape[d] for d in range(tensor.rank))
    steps: tuple[int, ...] | None = tuple(4 * tensor.strides[d] for d in range(tensor.rank)) if tensor.strides else None
    reach = sum((n - 1) * (s // 4) for n, s in zip(shape, steps)) if steps else int(np.prod(shape)) - 1
    memory = np.ctypeslib.as_array((ctypes.c_float * (reach + 1)).from_address(tensor.data + tensor.byte_offset))
    return np.lib.stride_tricks.as_strided(memory, shape, steps).copy()


# --- without libtorch ------------------------------------------------------------------------------------------------


def without_libtorch(folder: Path) -> None:
    assert re.fullmatch(rb"\d+\.\d+\.\d+", gp.version()) and gp.last_error() == b""
    assert gp.abi_version() == 0
    assert gp.text("path_parse", "a.b|sub_1") == "a.b|sub_1"
    gp.path_parse("a.b", None)
    with refused("PARSE", "at character 2"):
        gp.path_parse("a..b", None)
    assert gp.text("slice_parse", "[ ..., ::2]") == "[..., ::2]"
    sizes = (c_int64 * 2)(3, 4)
    assert gp.number("slice_check", "[1:, 0]", sizes, 2, kind=c_int64) == 2
    with refused("SLICE", "(3, 4)"):
        gp.slice_check("[3]", sizes, 2, None)
    with refused("ARGUMENT", "path"):
        gp.path_parse(None, None)
    with refused("ARGUMENT", "out"):
        gp.session_open(None)

    session = gp.new("session_open")
    with refused("TORCH", "libtorch"):
        gp.session_attach(session)
    with refused("TORCH"):
        gp.run_begin("model")
    gp.run_decline(True)
    aside = gp.new("calls_set_aside")
    assert aside and not gp.new("calls_set_aside")
    gp.calls_take_up(aside)
    with refused("ARGUMENT", "freed"):
        gp.calls_take_up(aside)
    gp.aside_free(gp.new("calls_set_aside"))
    gp.run_decline(False)
    gp.session_inside(session, "attention", True)
    with refused("ARGUMENT", "softmax"):
        gp.session_inside(session, "softmax", True)
    identity = gp.number("patch_add", session, "x=add:1")
    gp.patch_remove(session, identity)
    with refused("STATE"):
        gp.patch_remove(session, identity)
    root = gp.new("root_new", "model", "Model", texts(["x"]), 1, texts([]), 0, False)
    with refused("TORCH", "libtorch"):
        gp.torch_load()
    with refused("TORCH"):
        gp.run_open(session, root, byref(c_uint32()), None)
    with refused("TORCH"):
        gp.text("run_named")
    with refused("TORCH"):
        gp.text("run_patched", byref(c_bool()))
    with refused("TORCH"):
        gp.run_computes(b"linear", byref(c_bool()))
    with refused("TORCH", "libtorch"):
        gp.live_start(None)
    gp.live_stop()
    gp.root_free(root)
    with refused("FILE", "none.npy"):
        gp.new("value_text", f"@{folder / 'none.npy'}")
    gp.session_close(session)


# --- with libtorch ---------------------------------------------------------------------------------------------------


class Patched:
    """Patches at the node `relu` of one root, each compared with what torch itself gives."""

    def __init__(self) -> None:
        import torch

        self.session = gp.new("session_open")
        gp.session_attach(self.session)
        self.x = torch.arange(-6.0, 6.0).reshape(3, 4)
        self.bare = self.run()

    def run(self) -> Any:
        import torch

        gp.run_begin("eager")
        try:
            return torch.relu(self.x + 1) * 1
        finally:
            gp.run_end()

    def register(self, spec: Any) -> int:
        identity = gp.number("patch_register", self.session, spec)
        gp.spec_free(spec)
        return identity

    def counts(self, identity: int) -> tuple[int, int, int]:
        counts = Counts(ctypes.sizeof(Counts))
        gp.patch_get_counts(self.session, identity, byref(counts))
        return counts.matched, counts.applied, counts.failed

    def gives(self, spec: Any, expected: Any) -> None:
        import torch

        identity = self.register(spec)
        out = self.run()
        assert torch.equal(out, expected), (out, expected)
        assert self.counts(identity) == (1, 1, 0)
        gp.patch_remove(self.session, identity)
        assert torch.equal(self.run(), self.bare)

    def throws(self, spec: Any, *words: str) -> None:
        identity = self.register(spec)
        try:
            self.run()
        except RuntimeError as error:
            assert all(word in str(error) for word in words), str(error)
        else:
            raise AssertionError(f"nothing was thrown, {words} expected")
        assert self.counts(identity) == (1, 0, 1)
        assert all(word in gp.text("patch_last_error", self.session, identity) for word in words)
        gp.patch_remove(self.session, identity)


def spec(kind: str = "zero", value: Any = None, index: str | None = None) -> Any:
    made = gp.new("spec_new", "relu")
    if index:
        gp.spec_slice(made, index)
    if value is None:
        getattr(gp, f"spec_{kind}")(made)
    else:
        getattr(gp, f"spec_{kind}")(made, value)
        gp.value_free(value)
    return made


def check_values(p: Patched, folder: Path) -> None:
    import numpy as np
    import torch

    bare, zero = p.bare, torch.zeros(3, 4)
    p.gives(spec(), zero)
    p.gives(spec("replace", gp.new("value_int", -3)), zero - 3)
    p.gives(spec("add", gp.new("value_float", 0.1)), bare + 0.1)
    p.gives(spec("add", gp.new("value_text", "2.5")), bare + 2.5)
    delta = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.save(folder / "delta.npy", delta)
    p.gives(spec("add", gp.new("value_text", f"@{folder / 'delta.npy'}")), bare + torch.from_numpy(delta))
    of_file = gp.new("value_text", f"@{folder / 'delta.npy'}")
    read = np.from_dlpack(Lent(gp.new("value_tensor", of_file)))
    gp.value_free(of_file)
    assert np.array_equal(read, delta) and not read.flags.writeable, "it outlives the value"
    for number in ["value_int", "value_float"]:
        with refused("REFUSED", "a number is no tensor"):
            gp.new("value_tensor", gp.new(number, 2))

    # From torch and numpy, of several dtypes and layouts, broadcast.
    for array in [
        torch.randn(4),
        torch.randn(4, 3).t(),
        torch.randn(3, 8)[:, ::2],
        torch.tensor(2.0),
        torch.randn(3, 1),
        torch.tensor([1, 2, 3, 4]),
        torch.tensor([True, False, True, False]),
        torch.randn(4, dtype=torch.float64),
        torch.randn(4).half(),
        torch.randn(4).bfloat16(),
    ]:
        p.gives(spec("add", value_of(array)), bare.clone().add_(array))
        replaced = zero.clone()
        replaced[:] = array
        p.gives(spec("replace", value_of(array)), replaced)
    p.gives(spec("add", value_of(delta)), bare + torch.from_numpy(delta))
    p.throws(spec("add", value_of(torch.randn(5))), "relu", "(3, 4)")
    p.throws(spec("add", value_of(torch.tensor(1j))), "relu", "(3, 4)")

    # The array is handed over, so the call frees it.
    array = np.ones(4, dtype=np.float32)
    gone, capsule = weakref.ref(array), capsule_of(array)
    del array
    gc.collect()
    assert gone() is not None
    value = gp.new("value_dlpack", address(capsule, hand_over=True), True)
    gc.collect()
    assert gone() is None, "the deleter was not called"
    p.gives(spec("add", value), bare + 1)
    with refused("REFUSED", "dtype"):
        broken = capsule_of(torch.ones(2))
        ManagedTensor.from_address(address(broken)).tensor.dtype.code = 77
        gp.new("value_dlpack", address(broken), False)

    # libtorch's own tensor, and the gradient to it.
    weight = torch.randn(4, requires_grad=True)
    value = gp.new("value_torch", weight._cdata)
    data = weight.detach()
    p.gives(spec("add", gp.new("value_torch", data._cdata)), bare + data)
    identity = p.register(spec("replace", value, "[1:]"))
    p.run().sum().backward()
    gp.patch_remove(p.session, identity)
    assert weight.grad is not None and torch.equal(weight.grad, torch.full((4,), 2.0))


def check_indices(p: Patched) -> None:
    import numpy as np
    import torch

    def indexed(*items: Any) -> Any:
        made = spec("add", gp.new("value_int", 1))
        for item in items:
            if isinstance(item, int):
                gp.spec_index(made, item)
            elif isinstance(item, slice):
                gp.spec_slice(made, f"[{item.start or ''}::{item.step or 1}]")
            else:
                capsule = capsule_of(item)
                gp.spec_index_tensor(made, address(capsule), False)
        return made

    mask = torch.tensor([[True, False, False, True]] * 3)
    for items in [
        (0,),
        (-1, 2),
        (slice(1, None), 3),
        (torch.tensor([2, 0]),),
        (torch.tensor([1, 1]),),
        (mask,),
        (torch.tensor([True, False, True]), 1),
        (torch.tensor([[0], [2]]), torch.tensor([1, -1])),
        (slice(None, None, 2), torch.tensor([0, 3])),
        (np.array([1, 2], dtype=np.int32),),
    ]:
        expected = p.bare.clone()
        where = tuple(torch.from_numpy(i) if isinstance(i, np.ndarray) else i for i in items)
        try:
            expected[where] += 1
        except (IndexError, RuntimeError):
            p.throws(indexed(*items), "relu", "(3, 4)")
        else:
            p.gives(indexed(*items), expected)
    p.throws(indexed(3), "relu", "(3, 4)")
    p.throws(indexed(torch.tensor([0, 3])), "relu", "(3, 4)")
    p.throws(indexed(torch.ones(2, 4, dtype=torch.bool)), "relu", "(3, 4)")
    with refused("REFUSED", "float32"):
        indexed(torch.ones(2))


def check_functions(p: Patched) -> None:
    import numpy as np
    import torch

    seen: list[Any] = []
    answers: list[tuple[int, Any]] = []

    @CALLBACK
    def function(user: int, value: int, replacement: Any) -> int:
        assert user == 4711
        seen.append(shown(value))
        status, array = answers.pop()
        if array is not None:
            replacement[0] = address(capsule_of(array), hand_over=True)
        return status

    def custom(index: str | None = None) -> Any:
        made = spec(index=index)
        gp.spec_custom(made, function, 4711)
        return made

    answers.append((0, None))
    p.gives(custom(), p.bare)
    assert np.array_equal(seen[-1], p.bare.numpy())
    for array in [torch.randn(3, 4), np.ones(4, dtype=np.float32), torch.tensor(2.0), torch.randn(4, 3).t()]:
        answers.append((0, array))
        expected = p.bare.clone()
        expected[:] = torch.as_tensor(array)
        p.gives(custom(), expected)
    answers.append((0, torch.tensor([7.0, 8.0, 9.0])))
    expected = p.bare.clone()
    expected[:, 1] = torch.tensor([7.0, 8.0, 9.0])
    p.gives(custom("[:, 1]"), expected)
    assert np.array_equal(seen[-1], p.bare[:, 1].numpy())

    # Each array must be freed, whether the patch was applied or not.
    for status, size, words in [(5, 4, "the function returned 5"), (0, 5, "(3, 4)")]:
        array = np.ones(size, dtype=np.float32)
        gone = weakref.ref(array)
        answers.append((status, array))
        del array
        p.throws(custom(), words)
        gc.collect()
        assert gone() is None
    with refused("ARGUMENT", "callback"):
        gp.spec_custom(custom(), CALLBACK(), None)

    # A function reports why it fails, and its data is released as soon as nobody can call it any more.
    released: list[int] = []
    release = RELEASE(lambda user: released.append(user))
    failing = CALLBACK(lambda *_: gp.callback_fail("too hot"))
    made = spec()
    gp.spec_custom(made, failing, 17)
    gp.spec_release(made, release)
    p.throws(made, "the function failed: too hot")
    assert released == [17]

    assert not gp.runs_wanted()
    zero, identities = spec(), (c_uint64 * 2)()
    gp.patch_register_all(p.session, (c_void_p * 2)(zero.value, zero.value), 2, identities)
    gp.spec_free(zero)
    assert gp.runs_wanted() and torch.equal(p.run(), torch.zeros_like(p.bare))
    assert [p.counts(identity) for identity in identities] == [(1, 1, 0)] * 2
    gp.patch_remove_all(p.session, identities, 2)
    assert not gp.runs_wanted() and torch.equal(p.run(), p.bare)


def check_kept(p: Patched, folder: Path) -> None:
    import numpy as np
    import torch
    from safetensors.numpy import load_file

    made = spec("probe")
    before = gp.number("patch_register", p.session, made)
    zero = gp.number("patch_add", p.session, "relu[0]=zero")
    gp.spec_record(made, 2)
    record = p.register(made)
    number = gp.number("patch_add", p.session, "item=probe")
    with refused("ARGUMENT", "index"):
        gp.new("kept_tensor", p.session, before, 0)
    expected = p.bare.clone()
    expected[0] = 0
    for _ in range(3):
        assert torch.equal(p.run(), expected)
    gp.run_begin("eager")
    total = torch.ones(3).sum().item()
    gp.run_end()
    assert total == 3.0

    def kept(identity: int, index: int = 0) -> Any:
        managed = gp.new("kept_tensor", p.session, identity, index)
        tensor = ManagedTensor.from_address(managed.value)
        assert (tensor.major, tensor.flags & 1, bool(tensor.tensor.strides)) == (1, 1, False)
        return Lent(managed)

    array = np.from_dlpack(kept(before))
    assert np.array_equal(array, p.bare.numpy()) and not array.flags.writeable
    assert torch.equal(torch.from_dlpack(kept(record, 1)), expected)
    plain = np.from_dlpack(kept(number))
    assert plain.shape == () and plain.dtype == np.float64 and plain == 3.0
    count, dropped = c_uint64(), c_uint64()
    gp.kept_count(p.session, record, byref(count), byref(dropped))
    assert (count.value, dropped.value) == (2, 1)
    gp.kept_count(p.session, before, byref(count), None)
    assert count.value == 1
    with refused("STATE"):
        gp.new("kept_tensor", p.session, zero, 0)

    identity = gp.number("patch_add", p.session, "expand=probe")
    gp.run_begin("eager")
    try:
        torch.zeros(1).expand(1 << 54)
    except RuntimeError as error:
        assert "memory" in str(error), str(error)
    else:
        raise AssertionError("a value larger than any memory was kept")
    gp.run_end()
    gp.patch_remove(p.session, identity)

    gp.kept_save(p.session, str(folder / "kept.safetensors"))
    saved = load_file(folder / "kept.safetensors")
    assert sorted(saved) == ["item", "relu", "relu#0", "relu#1"]
    assert np.array_equal(saved["relu"], array) and np.array_equal(saved["relu#1"], expected.numpy())
    for identity in [before, zero, record, number]:
        gp.patch_remove(p.session, identity)
    p.run()
    assert np.array_equal(array, p.bare.numpy()), "what is kept outlives the patch"


def check_when(p: Patched) -> None:
    import torch

    zero = torch.zeros(3, 4)
    outer = gp.number("set_begin", p.session)
    identity = gp.number("patch_add", p.session, "relu=zero")
    inner = gp.number("set_begin", p.session)
    gp.number("patch_add", p.session, "relu=add:1")
    assert torch.equal(p.run(), zero + 1)
    gp.patch_enable(p.session, identity, False)
    assert torch.equal(p.run(), p.bare + 1)
    gp.patch_enable(p.session, identity, True)
    gp.set_end(p.session, inner)
    assert torch.equal(p.run(), zero)
    gp.set_end(p.session, outer)
    assert torch.equal(p.run(), p.bare)
    with refused("STATE"):
        gp.set_end(p.session, outer)

    made = spec()
    gp.spec_this_thread(made, True)
    identity, results = p.register(made), []
    thread = threading.Thread(target=lambda: results.append(p.run()))
    thread.start()
    thread.join()
    assert torch.equal(results[0], p.bare) and torch.equal(p.run(), zero)
    gp.patch_remove(p.session, identity)

    made = spec()
    gp.spec_runs(made, "0")
    identity = p.register(made)
    assert torch.equal(p.run(), p.bare), "run 0 of this root is long gone"
    gp.patch_remove(p.session, identity)

    gp.session_on_error(p.session, 1)
    identity = gp.number("patch_add", p.session, "relu[9]=zero")
    assert torch.equal(p.run(), p.bare) and p.counts(identity) == (1, 0, 1)
    gp.patch_remove(p.session, identity)
    gp.session_on_error(p.session, 0)


def check_cuda(p: Patched) -> None:
    """Checks of CUDA's calls that need no card, on CPU values. tests/gpu has the others."""
    status = gp.text("cuda_status")
    if status.startswith("not usable"):
        with refused("STATE", status.removeprefix("not usable: ")):
            gp.cuda_prepare(p.session, 0)
    else:
        gp.cuda_prepare(p.session, 0)

    made = spec("add", gp.new("value_float", 0.5))
    gp.spec_live(made, True)
    identity = p.register(made)
    assert (p.run() == p.bare + 0.5).all()
    value = gp.new("value_int", 3)
    gp.patch_set_value(p.session, identity, value)
    gp.value_free(value)
    assert (p.run() == p.bare + 3).all()
    gp.patch_enable(p.session, identity, False)
    assert (p.run() == p.bare).all()
    gp.patch_enable(p.session, identity, True)
    with refused("REFUSED", "stays a number"):
        gp.patch_set_value(p.session, identity, value_of(p.x))
    assert (p.run() == p.bare + 3).all() and p.counts(identity) == (3, 3, 0)
    gp.patch_remove(p.session, identity)
    with refused("STATE"):
        gp.patch_set_value(p.session, identity, gp.new("value_int", 1))

    made = spec("probe")
    gp.spec_keep_on_device(made, True)
    identity = p.register(made)
    p.run()
    lent = gp.new("kept_tensor", p.session, identity, 0)
    assert ManagedTensor.from_address(lent.value).tensor.device.kind == 1, "a CPU value has no other place"
    Lent(lent)
    gp.patch_remove(p.session, identity)
    with refused("ARGUMENT", "no probe"):
        gp.spec_keep_on_device(spec(), True)


def check_graphs(p: Patched, folder: Path) -> None:
    import torch

    def nested() -> Any:
        gp.run_begin("nested")
        gp.scope_enter("layers.0")
        y = torch.relu(p.x)
        gp.scope_leave()
        y = y * 2
        gp.run_end()
        return y

    runs = gp.number("session_runs", p.session)
    gp.session_record(p.session, True)
    plain = nested()
    gp.run_begin("nested")
    with refused("STATE", "already open"):
        gp.run_begin("nested")
    gp.run_end()
    gp.session_record(p.session, False)
    assert gp.number("session_runs", p.session) == runs + 2

    graphs = gp.new("session_graphs", p.session)
    assert gp.graphs_count(graphs) == 1 and gp.graphs_name(graphs, 0) == b"nested" and gp.graphs_name(graphs, 1) is None
    tree = gp.text("graphs_tree", graphs, 0, None)
    assert tree == "<root>: Graph(2)\n├─layers_0: Graph(1)\n│ └─relu: Tensor(3, 4)\n└─mul: Tensor(3, 4)\n", tree
    assert gp.text("graphs_complete", graphs, "layers_0.") == "layers_0.relu"
    assert gp.text("graphs_children", graphs, 0, None) == "layers_0\nmul"
    assert gp.text("graphs_shape", graphs, 0, "layers_0.relu") == "Tensor(3, 4)"
    node = Node(size=ctypes.sizeof(Node))
    gp.graphs_node(graphs, 0, None, byref(node))
    assert node.children == 2 and node.value == 0
    gp.graphs_node(graphs, 0, "layers_0.relu", byref(node))
    assert node.rank == 2 and node.children == 0 and node.value != 0
    smallest, largest = (c_int64 * 2)(), (c_int64 * 2)()
    gp.graphs_sizes(graphs, 0, "layers_0.relu", smallest, largest, 2)
    assert list(smallest) == list(largest) == [3, 4]
    name = c_void_p()
    assert gp.text("graphs_child", graphs, 0, "layers_0", 0, byref(name)) == "layers_0.relu"
    assert ctypes.string_at(name) == b"relu"
    gp.string_free(name)
    assert gp.text("graphs_find", graphs, 0, "layers_0", "relu") == "layers_0.relu"
    assert gp.text("graphs_search", graphs, 0, "*.re*", "relu", None, "3, *").splitlines() == ["layers_0.relu"]
    gp.graphs_check(graphs, (c_char_p * 2)(b"layers_0.relu", b"mul"), 2)
    with refused("PATH", "layers_0", "mull", "layers_0.relu"):
        gp.graphs_check(graphs, (c_char_p * 2)(b"layers_0", b"mull"), 2)
    gp.graphs_save(graphs, str(folder / "graph.json"))
    loaded = gp.new("graphs_load", str(folder / "graph.json"))
    assert gp.text("graphs_tree", loaded, 0, "") == tree
    gp.graphs_free(loaded)
    gp.graphs_free(graphs)
    (folder / "damaged.json").write_text("{")
    with refused("FORMAT", "damaged.json"):
        gp.new("graphs_load", str(folder / "damaged.json"))

    with refused("PATH"):
        gp.number("patch_add", p.session, "layers_0=zero")
    identity = gp.number("patch_add", p.session, "layers_0.relu[:, -1]=add:10")
    patched = plain.clone()
    patched[:, -1] += 20
    assert torch.equal(nested(), patched)
    gp.session_detach(p.session)
    assert torch.equal(nested(), plain)
    gp.session_attach(p.session)
    assert torch.equal(nested(), patched)
    gp.patch_remove(p.session, identity)
    assert gp.text("session_notes", p.session) == ""
    identity = gp.number("patch_add", p.session, "layers_0.relu=zero")  # and no run
    registered = gp.text("session_missed", p.session).splitlines()
    gp.patch_remove(p.session, identity)
    removed = gp.text("session_missed", p.session).splitlines()
    for missed in (registered, removed):
        assert "layers_0.relu=zero" in missed and "layers_0.relu[:, -1]=add:10" not in missed, missed


def main() -> None:
    global gp
    library, header, folder = sys.argv[1], Path(sys.argv[2]).read_text(encoding="utf-8"), Path(sys.argv[3])
    gp = Library(library, header)
    without_libtorch(folder)
    assert "torch" not in sys.modules
    p = Patched()
    check_values(p, folder)
    check_indices(p)
    check_functions(p)
    check_kept(p, folder)
    check_when(p)
    check_cuda(p)
    check_graphs(p, folder)
    gp.session_close(p.session)
    import reported_calls

    reported_calls.gp = gp
    reported_calls.check_modules(folder)
    missing = set(gp.declared) - gp.used
    assert not missing, f"not used: {sorted(missing)}"
    print("all as it must be")


if __name__ == "__main__":
    main()
