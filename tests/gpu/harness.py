"""What the checks share: the library by ctypes, patched runs of eager operations, comparison to the last bit."""

import ctypes
import sys
from collections.abc import Callable, Sequence
from ctypes import byref, c_void_p
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "helpers"), str(ROOT / "tests" / "torch")]

import test_ctypes
from test_ctypes import Counts, Library, ManagedTensor, address, capsule_of, value_of

DEVICE = "cpu" if "--dry-run" in sys.argv else "cuda"
LIBRARY = ROOT / "target" / "release" / "libgraphpatch.so"
gp = Library(str(LIBRARY), (ROOT / "include" / "graphpatch.h").read_text(encoding="utf-8"))
test_ctypes.gp = gp


def sync() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors are equal in every bit. Any NaN equals any other: cards differ in a NaN's bits."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if torch.equal(bits(a), bits(b)):
        return True
    wide = torch.complex128 if a.dtype.is_complex else torch.float64
    a, b = a.detach().cpu().to(wide), b.detach().cpu().to(wide)
    if a.dtype.is_complex:
        a, b = torch.view_as_real(a), torch.view_as_real(b)
    nan = a.isnan() & b.isnan()
    return bool((nan | (a == b)).all())


class Session:
    """A session with patches at nodes of one root."""

    def __init__(self) -> None:
        self.handle = gp.new("session_open")
        gp.session_attach(self.handle)

    def run(self, body: Callable[[], Any], root: str = "check") -> Any:
        gp.run_begin(root)
        try:
            return body()
        finally:
            gp.run_end()

    def add(
        self,
        path: str,
        kind: str = "zero",
        value: Any = None,
        index: Sequence[Any] = (),
        live: bool = False,
        stay: bool = False,
    ) -> int:
        """`value`: a number, or a tensor (on a device: libtorch's own); `index`: slices as text, or index tensors."""
        spec = gp.new("spec_new", path)
        for item in index:
            if isinstance(item, str):
                gp.spec_slice(spec, item)
            else:
                capsule = capsule_of(item)
                gp.spec_index_tensor(spec, address(capsule), False)
        if value is None:
            call = getattr(gp, f"spec_{kind}")
            call(spec, 0) if kind == "record" else call(spec)
        else:
            made = self.value(value)
            getattr(gp, f"spec_{kind}")(spec, made)
            gp.value_free(made)
        if live:
            gp.spec_live(spec, True)
        if stay:
            gp.spec_keep_on_device(spec, True)
        identity = gp.number("patch_register", self.handle, spec)
        gp.spec_free(spec)
        return identity

    @staticmethod
    def value(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            ours = value.device.type == "cpu" and not value.requires_grad
            return value_of(value) if ours else gp.new("value_torch", value._cdata)
        if isinstance(value, bool):
            return gp.new("value_text", str(value))
        if isinstance(value, int):
            return gp.new("value_int", value)
        return (
            gp.new("value_float", value) if isinstance(value, float) else gp.new("value_text", str(value).strip("()"))
        )

    def set_value(self, identity: int, value: Any) -> None:
        made = self.value(value)
        gp.patch_set_value(self.handle, identity, made)
        gp.value_free(made)

    def remove(self, *identities: int) -> None:
        for identity in identities:
            gp.patch_remove(self.handle, identity)

    def counts(self, identity: int) -> tuple[int, int, int]:
        counts = Counts(ctypes.sizeof(Counts))
        gp.patch_get_counts(self.handle, identity, byref(counts))
        return counts.matched, counts.applied, counts.failed

    def kept(self, identity: int, at: int = 0) -> torch.Tensor:
        managed = gp.new("kept_tensor", self.handle, identity, at)
        return torch.from_dlpack(Lent(managed))

    def close(self) -> None:
        gp.session_close(self.handle)


class Lent(test_ctypes.Lent):
    """A kept tensor on whatever device it is."""

    def __init__(self, managed: c_void_p) -> None:
        device = ManagedTensor.from_address(managed.value).tensor.device
        self.device = (device.kind, device.index)
        super().__init__(managed)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


def kernels(body: Callable[[], Any]) -> list[tuple[str, float]]:
    """Names and microseconds of our kernels that `body` launches, in order."""
    if DEVICE == "cpu":
        body()
        return []
    activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    sync()
    with torch.profiler.profile(activities=activities) as profile:
        body()
        sync()
    events = [
        e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA and e.name.startswith("gp_")
    ]
    return [(e.name, e.device_time) for e in sorted(events, key=lambda e: e.time_range.start)]


def expect_kernels(body: Callable[[], Any], *names: str) -> None:
    found = [name for name, _ in kernels(body)]
    assert DEVICE == "cpu" or found == list(names), f"launched {found}, expected {list(names)}"
