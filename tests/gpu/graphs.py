"""Patches in captured CUDA graphs: what a replay does, and what can be changed between replays."""

from collections.abc import Callable
from typing import Any

import torch

from harness import DEVICE, Session, gp, same


def capture(session: Session, body: Callable[[], Any]) -> tuple[Any, Any]:
    """The graph of a patched run, and the tensor that it writes."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        session.run(body)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = session.run(body)
    return graph, out


def check_capture(session: Session) -> None:
    """a patch in a capture is captured, with its value; removing it does not reach the graph"""
    x = torch.randn(64, 64, device=DEVICE)
    delta = torch.randn(64)
    for kind, value, expect in (
        ("zero", None, lambda x: x * 0),
        ("add", 2.0, lambda x: x + 2),
        ("add", delta, lambda x: x + delta.to(DEVICE)),
    ):
        identity = session.add("clone", kind, value)
        graph, out = capture(session, lambda: torch.clone(x))
        for removed in (False, True):
            if removed:
                session.remove(identity)
            x.normal_()
            graph.replay()
            torch.cuda.synchronize()
            assert same(out, expect(x)), (kind, removed)


def check_not_ready(session: Session) -> None:
    """what is not on the device cannot come there during a capture: an error says so, and the capture can go on"""
    identity = None
    graph, x = torch.cuda.CUDAGraph(), torch.randn(8, device=DEVICE)
    session.run(lambda: torch.clone(x))
    with torch.cuda.graph(graph):
        identity = session.add("clone", "add", 1.0, [torch.tensor([1, 3])])
        try:
            out = session.run(lambda: torch.clone(x))
        except RuntimeError as error:
            assert "during a capture" in str(error), error
            out = x + 0
    graph.replay()
    session.remove(identity)
    torch.cuda.synchronize()
    assert out.shape == x.shape


def check_live(session: Session) -> None:
    """a live patch is switched, and its number and its tensor changed, between replays"""
    x, first, second = torch.randn(64, device=DEVICE), torch.randn(64), torch.randn(64)
    number = session.add("clone", "add", 1.0, live=True)
    tensor = session.add("clone", "add", first, live=True)
    gp.cuda_prepare(session.handle, torch.cuda.current_device())
    graph, out = capture(session, lambda: torch.clone(x))

    def replayed(expected: torch.Tensor) -> None:
        x.normal_()
        before = x.clone()
        graph.replay()
        torch.cuda.synchronize()
        assert torch.allclose(out, before + expected.to(DEVICE), atol=1e-5)

    replayed(1 + first)
    session.set_value(number, 5)
    replayed(5 + first)
    session.set_value(tensor, second)
    replayed(5 + second)
    gp.patch_enable(session.handle, tensor, False)
    replayed(torch.tensor(5.0))
    gp.patch_enable(session.handle, tensor, True)
    replayed(5 + second)
    session.remove(number)
    replayed(second)
    session.remove(tensor)
    replayed(torch.tensor(0.0))


def check_probe(session: Session) -> None:
    """a probe whose copies stay shows what the last replay saw"""
    x = torch.randn(64, device=DEVICE)
    probe = session.add("clone", "probe", stay=True)
    graph, _ = capture(session, lambda: torch.clone(x))
    for _ in range(2):
        x.normal_()
        graph.replay()
        torch.cuda.synchronize()
        assert same(session.kept(probe), x)
    session.remove(probe)


def check_live_while_replayed(session: Session) -> None:
    """a complex number changes while a graph replays: each element has one of the two, never parts of both"""
    x = torch.zeros(1 << 20, device=DEVICE, dtype=torch.complex128)
    number = session.add("clone", "add", complex(1, 1), live=True)
    graph, out = capture(session, lambda: torch.clone(x))
    for turn in range(2000):
        graph.replay()
        session.set_value(number, complex(turn + 2, turn + 2))
        if turn % 50 == 0:
            torch.cuda.synchronize()
            assert torch.equal(out.real, out.imag), f"turn {turn}: halves of two numbers"
    session.remove(number)


def check_reading_in_a_capture(session: Session) -> None:
    """a kept value cannot be read while its stream is captured, which is said, and leaves the capture as it was"""
    x = torch.randn(64, device=DEVICE)
    probe = session.add("clone", "probe")
    session.run(lambda: torch.clone(x))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = x + 1
        try:
            session.kept(probe)
        except RuntimeError as error:
            assert "captured into a CUDA graph" in str(error), error
        else:
            raise AssertionError("it was read")
    graph.replay()
    torch.cuda.synchronize()
    assert same(out, x + 1) and same(session.kept(probe), x.cpu())
    session.remove(probe)


ON_A_CARD = [
    check_capture,
    check_not_ready,
    check_live,
    check_probe,
    check_live_while_replayed,
    check_reading_in_a_capture,
]
CHECKS = ON_A_CARD if DEVICE == "cuda" else []
