"""DLPack, the format in which CPU tensors are lent to the library: only the parts that index tensors need.

torch itself exports capsules of DLPack's older format without a version, which the library does not accept.
"""

from __future__ import annotations

import ctypes

import torch

_MAJOR, _CPU = 1, 1
_SIGNED, _UNSIGNED, _BOOL = 0, 1, 6

# The code and the bits of DLPack's type.
DTYPES = {
    torch.int64: (_SIGNED, 64),
    torch.int32: (_SIGNED, 32),
    torch.uint8: (_UNSIGNED, 8),
    torch.bool: (_BOOL, 8),
}


class ManagedTensor(ctypes.Structure):
    """DLManagedTensorVersioned, as dlpack.h has it."""

    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32),
        ("device_index", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


def lend(tensor: torch.Tensor) -> ManagedTensor:
    """A contiguous tensor in CPU memory, of one of :data:`DTYPES`. It must outlive what this returns."""
    code, bits = DTYPES[tensor.dtype]
    rank = tensor.dim()
    shape = (ctypes.c_int64 * max(rank, 1))(*tensor.shape)
    return ManagedTensor(
        major=_MAJOR, data=tensor.data_ptr(), device=_CPU, rank=rank, code=code, bits=bits, lanes=1, shape=shape
    )
