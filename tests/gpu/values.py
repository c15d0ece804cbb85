"""Patches on the card against PyTorch's own `x[slice] = 0`, `+=` and `= value` there, to the last bit."""

import threading
from typing import Any

import torch

from harness import DEVICE, Session, expect_kernels, gp, same, sync

DTYPES = [
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.complex128,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
]


def content(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    values = torch.randn(shape, generator=generator) * 20
    if dtype.is_complex:
        return torch.complex(values, values.flip(0)).to(dtype).to(DEVICE)
    return (values > 0).to(DEVICE) if dtype == torch.bool else values.to(dtype).to(DEVICE)


# The index as the library takes it, and as Python does.
INDICES: list[tuple[list[Any], Any]] = [
    ([], ...),
    (["[0]"], 0),
    (["[..., 0]"], (..., 0)),
    (["[:, 1:]"], (slice(None), slice(1, None))),
    (["[::2, ..., ::3]"], (slice(None, None, 2), ..., slice(None, None, 3))),
    (["[..., :16]"], (..., slice(0, 16))),
    (["[-1, 2, 5]"], (-1, 2, 5)),
    (["[2:2]"], slice(2, 2)),
    ([torch.tensor([2, 0])], torch.tensor([2, 0])),
    (["[:, ::2]", torch.tensor([1, 30])], (slice(None), slice(None, None, 2), torch.tensor([1, 30]))),
    (
        [torch.tensor([0, 2]), "[:]", torch.tensor([[4], [7]])],
        (torch.tensor([0, 2]), slice(None), torch.tensor([[4], [7]])),
    ),
    ([torch.arange(12).reshape(3, 4) % 3 == 0], torch.arange(12).reshape(3, 4) % 3 == 0),
]


def on_device(index: Any) -> Any:
    if isinstance(index, torch.Tensor):
        return index.to(DEVICE)
    return tuple(on_device(i) for i in index) if isinstance(index, tuple) else index


def compare(session: Session, x: torch.Tensor, kind: str, value: Any, items: list[Any], index: Any) -> None:
    what = f"{kind} {value if not isinstance(value, torch.Tensor) else (value.dtype, tuple(value.shape))} at {items} of {x.dtype}"
    expected = x.clone()
    given = value.to(DEVICE) if isinstance(value, torch.Tensor) and value.dim() else value
    refusal = None
    try:
        if kind == "zero":
            expected[on_device(index)] = 0
        elif kind == "add":
            expected[on_device(index)] += given
        else:
            expected[on_device(index)] = given
    except (RuntimeError, IndexError, NotImplementedError) as error:
        refusal = error
    before = x.clone()
    identity = session.add("clone", kind, value, items)
    try:
        after = session.run(lambda: torch.clone(x))
        sync()
        assert refusal is None, f"{what}: PyTorch refuses it: {refusal}"
        assert same(after, expected), f"{what}: other bits"
        assert session.counts(identity)[1] == 1, what
    except RuntimeError as error:
        assert refusal is not None, f"{what}: {error}"
    finally:
        session.remove(identity)
    assert same(x, before), f"{what}: the operand changed"


def check_every_dtype(session: Session) -> None:
    """zero, add and replace with numbers and tensors, 16 dtypes, slices, index tensors and masks"""
    for dtype in DTYPES:
        x = content(dtype, 3, 4, 33)
        number = True if dtype == torch.bool else 3
        for items, index in INDICES:
            compare(session, x, "zero", None, items, index)
            compare(session, x, "add", number, items, index)
            compare(session, x, "replace", number, items, index)
            part = x[on_device(index)]
            value = content(dtype, *part.shape).reshape(part.shape)
            for place in ("cpu", DEVICE):
                compare(session, x, "replace", value.to(place), items, index)
                compare(session, x, "add", value.to(place), items, index)
        if dtype.is_floating_point:
            compare(session, x, "add", 0.1, [], ...)
            compare(session, x, "replace", 0.1, [], ...)


def check_conversion(session: Session) -> None:
    """a value of another dtype, broadcast, of any strides"""
    for dtype in DTYPES:
        x = content(dtype, 3, 4, 33)
        for other in DTYPES:
            if not other.is_complex or dtype.is_complex:
                compare(
                    session,
                    x,
                    "replace",
                    content(other, 4, 33)[:, ::2].to(DEVICE),
                    ["[:, :, :17]"],
                    (slice(None), slice(None), slice(0, 17)),
                )
                compare(session, x, "add", content(other, 4, 1), [], ...)


def check_layouts(session: Session) -> None:
    """transposed, padded, channels-last and expanded values; odd sizes, odd offsets"""
    for make in (
        lambda t: t.transpose(0, 2),
        lambda t: t.permute(1, 2, 0),
        lambda t: t[:, 1:, 3:],
        lambda t: t[1:].flatten(),
        lambda t: t[:, :1].expand(3, 5, 33),
        lambda t: t.reshape(-1)[1:],
    ):
        for dtype in (torch.float32, torch.bfloat16, torch.int8):
            x = make(content(dtype, 3, 4, 33))
            for items, index in INDICES[:3]:
                compare(session, x, "add", 2, items, index)
                compare(session, x, "zero", None, items, index)


def check_launches(session: Session) -> None:
    """one kernel for a patch, one for several that do not meet, nothing else"""
    x = content(torch.float32, 64, 1024)
    cases = [
        (["clone=zero"], ["gp_zero_dense"]),
        (["clone[:, :512]=add:1"], ["gp_add_strided"]),
        (["clone=replace:2"], ["gp_replace_dense"]),
        (["clone[..., 0]=zero", "clone[..., 1]=add:3"], ["gp_batch"]),
        (["clone=zero", "clone=add:3"], ["gp_zero_dense", "gp_add_dense"]),
    ]
    for patches, launched in cases:
        identities = [gp.number("patch_add", session.handle, patch) for patch in patches]
        session.run(lambda: torch.clone(x))
        expect_kernels(lambda: session.run(lambda: torch.clone(x)), *launched)
        session.remove(*identities)


def check_sharing(session: Session) -> None:
    """a view is patched on a copy, an in-place result where it lies, and the operand never"""
    x = content(torch.float32, 8, 8)
    for path, body in (
        ("view", lambda: x.view(64) * 1),
        ("dropout", lambda: torch.dropout(x, 0.5, False) * 1),
        ("detach", lambda: x.detach() * 1),
    ):
        before = x.clone()
        identity = session.add(path)
        assert not session.run(body).any() and same(x, before), path
        session.remove(identity)
    identity = session.add("add_", "replace", 7)
    y = x.clone()
    session.run(lambda: y.add_(1))
    sync()
    assert (y == 7).all()
    session.remove(identity)


def check_errors(session: Session) -> None:
    """what cannot be applied is raised at the patch, and leaves the value alone"""
    x = content(torch.int32, 4)
    for patch, words in (("clone[9]=zero", "out of bounds"), ("clone=add:0.5", "clone")):
        identity = gp.number("patch_add", session.handle, patch)
        try:
            session.run(lambda: torch.clone(x))
        except RuntimeError as error:
            assert words in str(error), error
        else:
            raise AssertionError(f"{patch} was not refused")
        assert session.counts(identity) == (1, 0, 1)
        session.remove(identity)


def check_gradients(session: Session) -> None:
    """gradients through a patched value, and to the patch's own"""
    x = content(torch.float32, 4, 4).requires_grad_()
    delta = torch.ones(4, device=DEVICE, requires_grad=True)
    identity = session.add("mul", "replace", delta, ["[1]"])
    session.run(lambda: (x * 3).sum()).backward()
    session.remove(identity)
    expected = torch.full((4, 4), 3.0)
    expected[1] = 0
    assert torch.equal(x.grad.cpu(), expected) and torch.equal(delta.grad.cpu(), torch.ones(4))


def check_kept(session: Session) -> None:
    """probes and records copy on the device; read back, or left there"""
    x = content(torch.bfloat16, 128, 65)
    probe, zero = session.add("clone", "probe"), session.add("clone")
    stay, record = session.add("clone", "probe", stay=True), session.add("clone", "record")
    for n in range(3):
        session.run(lambda: torch.clone(x + n))
    assert same(session.kept(probe), (x + 2).cpu())
    there = session.kept(stay)
    assert there.device.type == DEVICE and not there.any()
    assert [bool(session.kept(record, n).any()) for n in range(3)] == [False] * 3
    session.remove(probe, zero, stay, record)
    assert not there.any(), "it outlives the patch"


def work_on(session: Session, x: torch.Tensor, times: int, faults: list[str]) -> None:
    for n in range(times):
        out = session.run(lambda: torch.clone(x) * 2, f"thread {threading.get_ident()}")
        if not bool((out[..., 0] == 6).all()) or not same(out[..., 1:], x[..., 1:] * 2):
            faults.append(f"run {n}")


def check_streams_and_threads(session: Session) -> None:
    """a stream that is not the default one; two threads with streams of their own; every device"""
    identity = session.add("clone", "replace", 3, ["[..., 0]"])
    faults: list[str] = []
    devices = range(torch.cuda.device_count()) if DEVICE == "cuda" else [0]
    for device in devices:
        x = content(torch.float32, 512, 513).to(f"cuda:{device}" if DEVICE == "cuda" else "cpu")

        def on_a_stream() -> None:
            if DEVICE == "cpu":
                return work_on(session, x, 20, faults)
            with torch.cuda.stream(torch.cuda.Stream(device)):
                work_on(session, x, 20, faults)
                torch.cuda.current_stream().synchronize()

        sync()
        on_a_stream()
        threads = [threading.Thread(target=on_a_stream) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if DEVICE == "cuda":  # on another device than the current one
            work_on(session, x, 3, faults)
    session.remove(identity)
    assert not faults, faults


def check_removal(session: Session) -> None:
    """a patch that is removed while its launch waits behind other work has its value there until it has run"""
    x = content(torch.float32, 1024, 1024)
    value = torch.randn(1024)
    for _ in range(20):
        identity = session.add("clone", "replace", value)
        if DEVICE == "cuda":
            torch.cuda._sleep(20_000_000)
        out = session.run(lambda: torch.clone(x))
        session.remove(identity)
        other = session.add("clone", "replace", torch.zeros(1024))
        session.run(lambda: torch.clone(x))
        session.remove(other)
        assert same(out, value.to(DEVICE).expand(1024, 1024))


def check_kept_on_other_streams(session: Session) -> str | None:
    """what a reader on another stream still reads is not used again when its tensor is gone"""
    if DEVICE == "cpu":
        return "there are no streams"
    x = content(torch.float32, 1024, 1024)
    stay = session.add("clone", "probe", stay=True)
    reader, sums = torch.cuda.Stream(), []
    for _ in range(10):
        session.run(lambda: torch.clone(x))
        with torch.cuda.stream(reader):
            kept = session.kept(stay)
            torch.cuda._sleep(20_000_000)
            sums.append(kept.sum())
            del kept
        session.run(lambda: torch.clone(x) * 0)
        torch.zeros(1024, 1024, device=DEVICE)
    sync()
    session.remove(stay)
    assert all(torch.equal(one, sums[0]) for one in sums) and bool(sums[0] != 0)
    return None


def check_green_contexts(session: Session) -> str | None:
    """a stream of a green context is patched by libtorch, with a note"""
    contexts = getattr(torch.cuda, "green_contexts", None)
    if DEVICE == "cpu" or contexts is None:
        return "this PyTorch has no green contexts, or no card"
    x = content(torch.float32, 64, 64)
    sync()
    identity = session.add("clone")
    context = contexts.GreenContext.create(num_sms=8, device_id=0)
    context.set_context()
    try:
        assert not session.run(lambda: torch.clone(x)).any()
        sync()
    finally:
        context.pop_context()
    session.remove(identity)
    return None


def check_torchscript(session: Session) -> None:
    """a scripted module on the card: nodes stay nodes in every run, fused or not"""

    class Chain(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x + 1.0) * 2.0 - x

    module, x = torch.jit.script(Chain().to(DEVICE)), content(torch.float32, 64, 64)
    bare = torch.relu(x + 1) * 2 - x
    identity = session.add("relu")
    module(x)  # the library does not see Python's first call of a scripted module
    for n in range(6):
        out = module(x)
        assert same(out, -x), f"run {n} was not patched"
    assert session.counts(identity)[1] == 6, session.counts(identity)
    session.remove(identity)
    assert torch.allclose(module(x), bare)


CHECKS = [
    check_every_dtype,
    check_conversion,
    check_layouts,
    check_launches,
    check_sharing,
    check_errors,
    check_gradients,
    check_kept,
    check_streams_and_threads,
    check_removal,
    check_kept_on_other_streams,
    check_torchscript,
]
# check.py runs this after it has looked for notes that libtorch did the work, because this check causes such a note.
LATE = [check_green_contexts]
