"""The kernels' conversions and sums against PyTorch: every pair of dtypes, with the values at which rounding goes wrong.

No card is needed: the CPU runs the kernels' source under the address sanitizer (tests/kernels/emulator.cpp). The
argument of a launch (struct Work of kernels/common.cuh) is packed by hand here, so that the host's planning is not part
of the test.
"""

import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from support import ROOT

# The numbers of kernels/dtype.cuh.
DTYPES = {
    torch.bool: 1,
    torch.uint8: 2,
    torch.int8: 3,
    torch.int16: 4,
    torch.int32: 5,
    torch.int64: 6,
    torch.float16: 7,
    torch.bfloat16: 8,
    torch.float32: 9,
    torch.float64: 10,
    torch.complex32: 11,
    torch.complex64: 12,
    torch.complex128: 13,
    torch.uint16: 14,
    torch.uint32: 15,
    torch.uint64: 16,
    torch.float8_e4m3fn: 17,
    torch.float8_e5m2: 18,
    torch.float8_e4m3fnuz: 19,
    torch.float8_e5m2fnuz: 20,
}
ADD, REPLACE = 1, 2
FLOAT8 = [d for d in DTYPES if "float8" in str(d)]
UNSIGNED = [torch.uint16, torch.uint32, torch.uint64]


class Emulator:
    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen(
            [program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
        )

    def ask(self, letter: bytes, *numbers: int, data: bytes = b"", answer: int = 0) -> bytes:
        self.process.stdin.write(letter + struct.pack(f"={len(numbers)}Q", *numbers) + data)
        self.process.stdin.flush()
        return self.process.stdout.read(answer) if answer else b""

    def place(self, tensor: torch.Tensor) -> int:
        data = raw(tensor)
        (address,) = struct.unpack("=Q", self.ask(b"A", len(data), answer=8))
        self.ask(b"W", address, len(data), data=data)
        return address

    def any(self, op: int, tensor: torch.Tensor, value: torch.Tensor, common: torch.dtype) -> torch.Tensor:
        """One launch of gp_any over two tensors of one dimension."""
        at, of = self.place(tensor), self.place(value)
        n, size, step = tensor.numel(), tensor.element_size(), value.element_size()
        work = struct.pack(
            "=4Q2Q2I8B4I",
            at,
            of,
            0,
            0,
            0,
            n,
            1,
            size,
            op,
            2,
            DTYPES[tensor.dtype],
            DTYPES[value.dtype],
            DTYPES[common],
            0,
            0,
            0,
            0,
            0,
            size,
            0,
        )
        work += struct.pack("=3q", n, size, step) + bytes(7 * 24)
        picks = bytes(24 + 8 * 24)
        pad = -len(work) % 16
        arguments = work + bytes(pad) + picks
        launch = b"gp_any".ljust(24, b"\0") + struct.pack("=3Q", 2, 64, len(arguments)) + arguments
        assert self.ask(b"L", data=launch, answer=1) == b"\1", "the kernel stopped: see what the address sanitizer says"
        result = self.ask(b"R", at, n * size, answer=n * size)
        self.ask(b"F", at)
        self.ask(b"F", of)
        return torch.frombuffer(bytearray(result), dtype=torch.uint8).view(tensor.dtype)


def raw(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().view(torch.uint8).numpy().tobytes())


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    program = tmp_path_factory.mktemp("kernels") / "emulator"
    subprocess.run(
        [
            os.environ.get("CXX", "c++"),
            "-std=c++17",
            "-O1",
            "-g",
            "-ffp-contract=off",
            "-Wno-unknown-pragmas",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all",
            ROOT / "tests/kernels/emulator.cpp",
            "-o",
            program,
        ],
        check=True,
    )
    made = Emulator(program)
    yield made
    made.process.kill()
    made.process.wait()


def every_bit_pattern(dtype: torch.dtype) -> torch.Tensor:
    """All values of an 8- or 16-bit dtype; for wider ones many, with the neighbours of those of smaller dtypes."""
    if dtype == torch.bool:
        return torch.tensor([False, True])
    size = torch.empty(0, dtype=dtype).element_size()
    if size == 1:
        return torch.arange(256).to(torch.uint8).view(dtype)
    if size == 2:
        return torch.arange(-32768, 32768).to(torch.int16).view(dtype)
    generator = torch.Generator().manual_seed(0)
    if dtype.is_complex:
        part = {torch.complex32: torch.float16, torch.complex64: torch.float32, torch.complex128: torch.float64}[dtype]
        values = every_bit_pattern(part)
        pick = torch.randint(len(values), (8192,), generator=generator)
        return values[pick].contiguous().view(dtype)
    if not dtype.is_floating_point:
        small = torch.randint(-200, 200, (2000,), generator=generator)
        large = torch.randint(-(1 << 62), 1 << 62, (2000,), generator=generator) >> torch.randint(
            0, 62, (2000,), generator=generator
        )
        return torch.cat(
            [small, large, torch.tensor([0, 1, -1, (1 << 24) + 1, (1 << 53) + 1, (1 << 63) - 1, -(1 << 63)])]
        ).to(dtype)
    places: list[torch.Tensor] = []
    for kind in [torch.float16, torch.bfloat16, *FLOAT8]:
        exact = every_bit_pattern(kind).float()
        exact = exact[exact.isfinite()].sort().values
        exact = exact[:: max(1, len(exact) // 4096)]
        between = (exact[1:].double() + exact[:-1].double()) / 2
        places += [exact.double(), between]
    exact = torch.cat(places).to(dtype)
    up, down = (torch.nextafter(exact, torch.tensor(s * float("inf"), dtype=dtype)) for s in (1, -1))
    noise = torch.randn(4000, generator=generator, dtype=torch.float64).exp().to(dtype) * 100
    special = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-45, 3e38, -3e38], dtype=dtype)
    return torch.cat([exact, up, down, noise, -noise, special])


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal in every bit, but one NaN is as good as another."""
    if a.dtype.is_complex:
        parts = {2: torch.float16, 4: torch.float32, 8: torch.float64}[a.element_size() // 2]
        a, b = a.view(parts), b.view(parts)
    if a.dtype.is_floating_point:
        wide = (a.float(), b.float()) if a.element_size() < 8 else (a, b)
        nan = wide[0].isnan() & wide[1].isnan()
        bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
        return bool(((a.view(bits) == b.view(bits)) | nan).all())
    return torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def in_range(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The values that the dtype can hold. Converting others to an integer is undefined, in PyTorch as here. For
    float8_e4m3fn, PyTorch 2.11 gives NaN and 2.15 the largest number, so the kernels leave these to libtorch."""
    if dtype == torch.float8_e4m3fn:
        real = value.real if value.dtype.is_complex else value
        return value[~(real.double().abs() > 464)]  # halfway from the largest number, 448, to 480
    if not (value.dtype.is_floating_point or value.dtype.is_complex) or dtype.is_floating_point or dtype.is_complex:
        return value
    if dtype == torch.bool:
        return value
    info = torch.iinfo(dtype)
    wide = value.double()
    return value[(wide > max(info.min, -(2**53))) & (wide < min(info.max, 2**53))]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).split(".")[1])
def test_a_value_is_converted_as_pytorch_does(emulator: Emulator, dtype: torch.dtype) -> None:
    for other in DTYPES:
        if other == dtype or (other.is_complex and not dtype.is_complex):
            continue
        value = in_range(every_bit_pattern(other), dtype)
        expected = torch.zeros(len(value), dtype=dtype)
        expected.copy_(value)
        if dtype == torch.bool and other in FLOAT8:
            expected = value.float() != 0
        after = emulator.any(REPLACE, torch.zeros(len(value), dtype=dtype), value, dtype)
        assert same(after, expected), other


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d not in FLOAT8 + UNSIGNED], ids=lambda d: str(d).split(".")[1])
def test_a_sum_is_that_of_pytorch(emulator: Emulator, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    for other in DTYPES:
        if other in FLOAT8 + UNSIGNED:
            continue
        common = torch.promote_types(dtype, other)
        if not torch.can_cast(common, dtype):
            continue
        values, places = every_bit_pattern(other), every_bit_pattern(dtype)
        n = 20000
        value = values[torch.randint(len(values), (n,), generator=generator)].contiguous()
        place = places[torch.randint(len(places), (n,), generator=generator)].contiguous()
        if dtype.is_complex:  # PyTorch multiplies by a complex 1 first, which makes NaN of what is infinite
            value, place = (torch.where(torch.isfinite(t.to(common)), t, torch.ones_like(t)) for t in (value, place))
        expected: Any = place.clone()
        if torch.complex32 in (dtype, other):
            # PyTorch's CPU build has no sum of complex32; a card computes it in complex64.
            if common != torch.complex32:
                continue
            wide = place.to(torch.complex64) + value.to(torch.complex32).to(torch.complex64)
            expected = wide.to(torch.complex32)
        else:
            expected.add_(value)
        assert same(emulator.any(ADD, place, value, common), expected), other


def test_a_live_patch_is_never_seen_half_changed(tmp_path: Path) -> None:
    """Kernels read its switch and number while they are written, a million different ones."""
    program = tmp_path / "live"
    compiler = os.environ.get("CXX", "c++")
    source = ROOT / "tests/kernels/live.cpp"
    subprocess.run(
        [compiler, "-std=c++17", "-O2", "-pthread", "-Wno-unknown-pragmas", source, "-o", program], check=True
    )
    done = subprocess.run([program], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "0 torn of 1000000 states\n"), done.stdout
