"""Times patches on a card against PyTorch's own operations. Results are ratios, as medians over several rounds."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from harness import DEVICE, Session, kernels, sync

HERE = Path(__file__).resolve().parent
ROUNDS = 15
SIZE = 1 << 30 if DEVICE == "cuda" else 1 << 12


def elapsed(body: Callable[[], Any], times: int = 1) -> float:
    """The time that the card takes for one call, in microseconds."""
    if DEVICE == "cpu":
        return host(body, times)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    rounds = []
    body()
    for _ in range(ROUNDS):
        start.record()
        for _ in range(times):
            body()
        end.record()
        end.synchronize()
        rounds.append(start.elapsed_time(end) * 1000 / times)
    return statistics.median(rounds)


def host(body: Callable[[], Any], times: int = 200) -> float:
    """The time until the call returns, in microseconds. The card may finish later."""
    rounds = []
    body()
    for _ in range(ROUNDS):
        sync()
        start = time.perf_counter()
        for _ in range(times):
            body()
        rounds.append((time.perf_counter() - start) * 1e6 / times)
    sync()
    return statistics.median(rounds)


def bandwidth(session: Session) -> list[str]:
    """1 GB values: the share of the card's own copy bandwidth. Target 90 %."""
    lines = []
    for dtype in (torch.float32, torch.bfloat16, torch.int8):
        x = torch.zeros(SIZE // torch.empty(0, dtype=dtype).element_size(), dtype=dtype, device=DEVICE)
        y = torch.empty_like(x)
        copied = 2 * SIZE / elapsed(lambda: y.copy_(x))
        value = torch.ones_like(x)
        for kind, given, moved in (
            ("zero", None, 1),
            ("replace", 2, 1),
            ("add", 2, 2),
            ("replace", value, 2),
            ("add", value, 3),
        ):
            identity = session.add("relu_", kind, given)
            for _ in range(3):
                session.run(lambda: torch.relu_(x))
            times = [t for _ in range(ROUNDS) for _, t in kernels(lambda: session.run(lambda: torch.relu_(x)))]
            session.remove(identity)
            rate = moved * SIZE / statistics.median(times) if times else float("nan")
            name = (
                f"{kind} {'tensor' if isinstance(given, torch.Tensor) else given if given is not None else ''}".strip()
            )
            lines.append(
                f"{str(dtype)[6:]:9} {name:15} {rate / 1e3:8.0f} GB/s, {100 * rate / copied:4.0f} % of copy_ ({copied / 1e3:.0f} GB/s)"
            )
        del x, y, value
    return lines


def small(session: Session) -> list[str]:
    """4 KB values: one patch on the card and on the host, next to PyTorch."""
    x = torch.zeros(1024, device=DEVICE)
    lines = []
    body = lambda: torch.relu_(x)
    elsewhere = session.add("nowhere")
    armed = host(lambda: session.run(body))
    session.remove(elsewhere)
    for kind, given, peer in (
        ("zero", None, lambda: x.__setitem__(slice(0, 512), 0)),
        ("add", 0.5, lambda: x[:512].add_(0.5)),
    ):
        identity = session.add("relu_", kind, given, ["[:512]"])
        patched = host(lambda: session.run(body))
        times = [t for _ in range(ROUNDS) for _, t in kernels(lambda: session.run(body))]
        session.remove(identity)
        card = statistics.median(times) if times else float("nan")
        lines.append(
            f"{kind}: {card:.2f} us on the card; host {patched - armed:.2f} us, PyTorch's {host(peer):.2f} us, "
            f"ratio {(patched - armed) / host(peer):.2f}"
        )
    return lines


def first_use(session: Session) -> list[str]:
    """What the first use costs: the kernels are loaded, which the driver compiles for its card."""
    if DEVICE == "cpu":
        return ["no kernels are loaded for CPU values"]
    code = (
        "import sys, time, torch\n"
        f"sys.argv = ['check']; sys.path.insert(0, {str(HERE)!r})\n"
        "from harness import Session, gp\n"
        "torch.zeros(1, device='cuda'); session = Session(); torch.cuda.synchronize()\n"
        "start = time.perf_counter(); gp.cuda_prepare(session.handle, 0)\n"
        "print((time.perf_counter() - start) * 1e3)"
    )
    lines = []
    for name, cache in (("the driver's cache of compiled kernels off", "1"), ("on", "0")):
        times = []
        for _ in range(3):
            done = subprocess.run(
                [sys.executable, "-c", code],
                capture_output=True,
                text=True,
                check=True,
                env={**os.environ, "CUDA_CACHE_DISABLE": cache},
            )
            times.append(float(done.stdout.split()[-1]))
        lines.append(f"{name}: {statistics.median(times):.1f} ms (if more than 50, ship cubins)")
    return lines


def removal(session: Session) -> list[str]:
    """How long adding and removing a patch with a tensor value holds the host while the card is busy."""
    x, value = torch.zeros(1024, 1024, device=DEVICE), torch.ones(1024)
    identity = session.add("clone", "replace", value)
    session.run(lambda: torch.clone(x))
    session.remove(identity)
    times = []
    for _ in range(ROUNDS):
        identity = session.add("clone", "replace", value)
        session.run(lambda: torch.clone(x))
        sync()
        if DEVICE == "cuda":
            torch.cuda._sleep(50_000_000)
        start = time.perf_counter()
        session.remove(identity)
        times.append((time.perf_counter() - start) * 1e6)
        sync()
    return [f"{statistics.median(times):.0f} us, of some 25,000 us of the card's work"]


def transformer(session: Session) -> list[str]:
    """12 layers in bfloat16: bare, a patch elsewhere, one zero patch; eager, and as a captured graph."""
    width, tokens = (768, 128) if DEVICE == "cuda" else (32, 8)
    layers = [
        torch.nn.TransformerEncoderLayer(width, width // 64 or 1, 4 * width, batch_first=True, dropout=0.0)
        for _ in range(12)
    ]
    model = torch.nn.Sequential(*layers).to(DEVICE, torch.bfloat16).eval()
    # PyTorch's fused path makes each layer a single operation, but this measures a model of many operations.
    torch.backends.mha.set_fastpath_enabled(False)
    x = torch.randn(1, tokens, width, device=DEVICE, dtype=torch.bfloat16)
    lines = []
    with torch.no_grad():
        run = lambda: session.run(lambda: model(x))
        host(run, 5)  # warms up
        bare = host(lambda: model(x), 5)
        for name, path in (("a patch elsewhere", "nowhere"), ("one zero patch", "layer_norm_11")):
            identity = session.add(path, index=["[..., 0]"])
            ratio = host(run, 5) / bare
            assert path == "nowhere" or session.counts(identity)[1] > 0, "the patch met nothing"
            lines.append(f"eager, {name}: {ratio:.3f} x bare ({bare:.0f} us)")
            if DEVICE == "cuda":
                from graphs import capture

                graph, _ = capture(session, lambda: model(x))
                patched = elapsed(graph.replay, 20)
                session.remove(identity)
                plain, _ = capture(session, lambda: model(x))
                lines.append(f"CUDA graph, {name}: {patched / elapsed(plain.replay, 20):.3f} x bare")
            else:
                session.remove(identity)
    return lines


TIMINGS = [first_use, bandwidth, small, removal, transformer]
