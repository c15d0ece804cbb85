"""DLPack, the format in which CPU tensors are lent to the library, and handed over by it: only the parts that index
tensors and values of files need.

torch itself exports capsules of DLPack's older format without a version, which the library does not accept.
"""

from __future__ import annotations

import ctypes

import torch

_MAJOR, _CPU = 1, 1
_SIGNED, _UNSIGNED, _FLOAT, _BFLOAT, _COMPLEX, _BOOL = 0, 1, 2, 4, 5, 6

# The code and the bits of DLPack's type.
DTYPES = {
    torch.int64: (_SIGNED, 64),
    torch.int32: (_SIGNED, 32),
    torch.uint8: (_UNSIGNED, 8),
    torch.bool: (_BOOL, 8),
}

# The same for all that values of files may be of.
_HANDED = {code: dtype for dtype, code in DTYPES.items()} | {
    (_SIGNED, 8): torch.int8,
    (_SIGNED, 16): torch.int16,
    (_FLOAT, 16): torch.float16,
    (_BFLOAT, 16): torch.bfloat16,
    (_FLOAT, 32): torch.float32,
    (_FLOAT, 64): torch.float64,
    (_COMPLEX, 64): torch.complex64,
    (_COMPLEX, 128): torch.complex128,
}
_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


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


def taken(address: int) -> torch.Tensor:
    """A copy of the row-major tensor in CPU memory that a call handed over; that one is freed. Raises ValueError for a
    dtype that few libraries know."""
    managed = ManagedTensor.from_address(address)
    try:
        dtype = _HANDED.get((managed.code, managed.bits))
        if dtype is None:
            raise ValueError(f"a tensor of DLPack's type {managed.code} with {managed.bits} bits is not taken")
        copied = torch.empty(managed.shape[: managed.rank], dtype=dtype)
        if copied.numel():
            size = copied.numel() * copied.element_size()
            ctypes.memmove(copied.data_ptr(), managed.data + managed.byte_offset, size)
        return copied
    finally:
        _DELETER(managed.deleter)(address)
