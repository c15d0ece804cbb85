"""libgraphpatch from a language without a binding: everything here is ctypes and include/graphpatch.h.

    python session.py libgraphpatch.so MODEL.pt

The model is a TorchScript file with a module called `linear` in it, and takes a (3, 2) tensor. The tree, the values that
were seen and what a patch made of them are printed; test_ctypes_session.py compares them with PyTorch.
"""

import ctypes
import json
import sys
from ctypes import (
    POINTER,
    byref,
    c_bool,
    c_char_p,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)

import torch


class DLTensor(ctypes.Structure):  # DLPack 1's layouts, as <dlpack/dlpack.h> has them
    _fields_ = [
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    ]


class ManagedTensor(ctypes.Structure):
    pass


DELETER = ctypes.CFUNCTYPE(None, POINTER(ManagedTensor))
ManagedTensor._fields_ = [
    ("major", c_uint32),
    ("minor", c_uint32),
    ("context", c_void_p),
    ("deleter", DELETER),
    ("flags", c_uint64),
    ("tensor", DLTensor),
]
CALLBACK = ctypes.CFUNCTYPE(c_int32, c_void_p, POINTER(ManagedTensor), POINTER(c_void_p))

gp = ctypes.CDLL(sys.argv[1])
for name, arguments in {  # as in the header; handles are opaque, so an address is enough
    "session_open": [POINTER(c_void_p)],
    "session_attach": [c_void_p],
    "session_record": [c_void_p, c_bool],
    "session_graphs": [c_void_p, POINTER(c_void_p)],
    "graphs_tree": [c_void_p, c_size_t, c_char_p, POINTER(c_void_p)],
    "patch_add": [c_void_p, c_char_p, POINTER(c_uint64)],
    "patch_remove": [c_void_p, c_uint64],
    "kept_tensor": [c_void_p, c_uint64, c_uint64, POINTER(POINTER(ManagedTensor))],
    "spec_new": [c_char_p, POINTER(c_void_p)],
    "spec_slice": [c_void_p, c_char_p],
    "spec_custom": [c_void_p, CALLBACK, c_void_p],
    "patch_register": [c_void_p, c_void_p, POINTER(c_uint64)],
}.items():
    call = getattr(gp, f"gp_{name}")
    call.restype, call.argtypes = c_int, arguments
gp.gp_last_error.restype = c_char_p
for name in ["session_close", "graphs_free", "spec_free", "string_free"]:
    call = getattr(gp, f"gp_{name}")
    call.restype, call.argtypes = None, [c_void_p]


def ok(status: int) -> None:
    if status:  # the message belongs to this thread's last failing call
        raise RuntimeError(f"status {status}: {gp.gp_last_error().decode()}")


def numbers(tensor: DLTensor) -> list[float]:
    """The elements of a float32 tensor on the CPU, in row-major order."""
    assert (tensor.device_type, tensor.code, tensor.bits, tensor.lanes) == (1, 2, 32, 1)
    shape = [tensor.shape[d] for d in range(tensor.ndim)]
    steps = [tensor.strides[d] for d in range(tensor.ndim)] if tensor.strides else None
    if steps is None:  # NULL: row-major
        steps = [1] * tensor.ndim
        for d in reversed(range(tensor.ndim - 1)):
            steps[d] = steps[d + 1] * shape[d + 1]
    places = [0]
    for size, step in zip(shape, steps):
        places = [place + i * step for place in places for i in range(size)]
    data = ctypes.cast(tensor.data + tensor.byte_offset, POINTER(ctypes.c_float))
    return [data[place] for place in places]


seen: list[list[float]] = []


@CALLBACK  # kept alive by this module, as long as the patch may call it
def look(user: int, value: "ctypes._Pointer[ManagedTensor]", replacement: object) -> int:
    seen.append(numbers(value.contents.tensor))
    return 0  # and no replacement: the value stays as it is


model, x = torch.jit.load(sys.argv[2]), torch.arange(6.0).reshape(3, 2)
session, graphs, text, spec = c_void_p(), c_void_p(), c_void_p(), c_void_p()
probe, zero, function = c_uint64(), c_uint64(), c_uint64()
ok(gp.gp_session_open(byref(session)))
ok(gp.gp_session_attach(session))

ok(gp.gp_session_record(session, True))
for _ in range(2):  # Python's first call on a thread goes past the module and is not seen (gp_session_notes says so)
    model(x)
ok(gp.gp_session_graphs(session, byref(graphs)))
ok(gp.gp_graphs_tree(graphs, 0, None, byref(text)))
print(ctypes.string_at(text).decode(), end="")
gp.gp_string_free(text)  # text that is handed over is the caller's to free
gp.gp_graphs_free(graphs)

ok(gp.gp_patch_add(session, b"linear.output=probe", byref(probe)))
ok(gp.gp_patch_add(session, b"linear.output[0]=zero", byref(zero)))
ok(gp.gp_spec_new(b"linear.output", byref(spec)))
ok(gp.gp_spec_slice(spec, b"[:, 1]"))
ok(gp.gp_spec_custom(spec, look, None))
ok(gp.gp_patch_register(session, spec, byref(function)))
gp.gp_spec_free(spec)
patched = model(x)[0]

kept = POINTER(ManagedTensor)()
ok(gp.gp_kept_tensor(session, probe, 0, byref(kept)))
print(json.dumps({"kept": numbers(kept.contents.tensor), "seen": seen, "patched": patched.flatten().tolist()}))
kept.contents.deleter(kept)  # a tensor that is handed over has its own way to be freed
for patch in [probe, zero, function]:
    ok(gp.gp_patch_remove(session, patch))

try:
    ok(gp.gp_patch_add(session, b"linear.outputs=zero", byref(zero)))
except RuntimeError as error:
    print(error, file=sys.stderr)
gp.gp_session_close(session)
print(json.dumps(model(x)[0].flatten().tolist()))
