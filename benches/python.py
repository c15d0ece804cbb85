"""What looking inside a Python model costs, next to forward hooks and to other libraries that do it.

    python.py [--rounds 40] [--tokens 16]

A GPT-2 of transformers with random weights, one thread, no_grad. Each process measures its own bare program, and its
modes take turns in random order, round by round, so that drift of the machine falls on all of them. It is measured here
and in each interpreter that GRAPHPATCH_PEERS names (separated by colons): there may be nnsight, or graphpatch with the
older torch that it needs. Ratios are to the bare program of the same process; a library that is nowhere is named at the
end.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gc
import importlib.util
import os
import random
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bindings" / "python"))

LIBRARIES = ["libgraphpatch", "nnsight", "graphpatch"]
WIDTHS = [256, 64]
# A module's output, and an operation inside a module that no hook reaches.
OUTPUT, INSIDE = "transformer.h_3.mlp.output", "transformer.h_3.mlp.act.tanh"

Run = Callable[[], Any]
# A mode's name, the context that is open around the forwards of a round, and the forward.
Mode = tuple[str, Callable[[], contextlib.AbstractContextManager[Any]], Run]


def gpt2(width: int) -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=256,
        n_positions=64,
        n_embd=width,
        n_layer=6,
        n_head=4,
        initializer_range=0.1,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config).eval()


# --- modes ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def hooked(hooks: list[tuple[Any, Callable[..., Any]]]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def hook_modes(model: Any, inputs: dict[str, Any]) -> list[Mode]:
    import torch

    kept: dict[Any, Any] = {}

    def keep(module: Any, given: Any, output: Any) -> None:
        output = output[0] if isinstance(output, tuple) else output
        kept[module] = output.detach().clone() if isinstance(output, torch.Tensor) else output

    one = [(model.transformer.h[3].mlp, lambda module, given, output: torch.zeros_like(output))]
    idle = [(module, lambda module, given, output: None) for module in model.modules()]
    copying = [(module, keep) for module in model.modules()]
    run = lambda: model(**inputs).logits
    return [
        ("a forward hook that zeroes a module's output", lambda: hooked(one), run),
        ("hooks on all modules, doing nothing", lambda: hooked(idle), run),
        ("hooks on all modules, copying their outputs", lambda: hooked(copying), run),
    ]


def libgraphpatch_modes(model: Any, inputs: dict[str, Any]) -> list[Mode]:
    import torch

    from libgraphpatch import PatchableGraph, ProbePatch, ZeroPatch

    pg = PatchableGraph(model, **inputs)

    def leaves(node: Any) -> list[str]:
        below = [path for child in node for path in leaves(child)]
        return below or ([str(node)] if type(node._shape) is torch.Size else [])

    paths = leaves(pg.graph)
    run = lambda: pg(**inputs).logits
    return [
        ("libgraphpatch: nothing patched", contextlib.nullcontext, run),
        ("libgraphpatch: zero a module's output", lambda: pg.patch({OUTPUT: ZeroPatch()}), run),
        ("libgraphpatch: zero an inner operation", lambda: pg.patch({INSIDE: ZeroPatch()}), run),
        ("libgraphpatch: record the graph", pg.recording, run),
        (
            f"libgraphpatch: probe all {len(paths)} tensors",
            lambda: pg.patch({path: ProbePatch() for path in paths}),
            run,
        ),
    ]


def nnsight_modes(model: Any, inputs: dict[str, Any]) -> list[Mode]:
    import nnsight

    model = nnsight.NNsight(copy.deepcopy(model))  # a copy, because nnsight does not unwrap the model again

    def zero_output() -> Any:
        with model.trace(**inputs):
            model.transformer.h[3].mlp.output[:] = 0
            logits = model.output.logits.save()
        return logits

    def zero_inside() -> Any:
        with model.trace(**inputs):
            model.transformer.h[3].mlp.act.source.torch_tanh_0.output[:] = 0
            logits = model.output.logits.save()
        return logits

    def cached() -> Any:
        with model.trace(**inputs) as tracer:
            cache = tracer.cache()  # noqa: F841
            logits = model.output.logits.save()
        return logits

    return [
        ("nnsight: outside of a trace", contextlib.nullcontext, lambda: model._module(**inputs).logits),
        ("nnsight: zero a module's output", contextlib.nullcontext, zero_output),
        ("nnsight: zero an inner operation", contextlib.nullcontext, zero_inside),
        ("nnsight: cache all modules", contextlib.nullcontext, cached),
    ]


def graphpatch_modes(model: Any, inputs: dict[str, Any]) -> list[Mode]:
    from graphpatch import PatchableGraph, ProbePatch, ZeroPatch
    from graphpatch.meta import NodeShape

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pg = PatchableGraph(copy.deepcopy(model), **inputs)
    nodes = [node for _, node in pg.graph._depth_first_items() if node.is_leaf and isinstance(node._value, NodeShape)]
    paths = [node._path for node in nodes if node._value._shape is not None]
    run = lambda: pg(**inputs).logits
    return [
        ("graphpatch: nothing patched", contextlib.nullcontext, run),
        ("graphpatch: zero a module's output", lambda: pg.patch({OUTPUT: ZeroPatch()}), run),
        ("graphpatch: zero an inner operation", lambda: pg.patch({INSIDE: ZeroPatch()}), run),
        (f"graphpatch: probe all {len(paths)} tensors", lambda: pg.patch({path: ProbePatch() for path in paths}), run),
    ]


MODES = {"libgraphpatch": libgraphpatch_modes, "nnsight": nnsight_modes, "graphpatch": graphpatch_modes}


# --- targets --------------------------------------------------------------------------------------------------------

HOOK = "a forward hook that zeroes a module's output"
PATCHES = ("libgraphpatch: zero a module's output", "libgraphpatch: zero an inner operation")
# A mode, the mode that it is compared with, and by width of the model the largest ratio that is wanted.
TARGETS: list[tuple[str, str, dict[int, float]]] = [
    ("libgraphpatch: nothing patched", "bare", {256: 1.005, 64: 1.005}),
    *((patch, HOOK, {256: 1.00, 64: 1.02}) for patch in PATCHES),
    ("libgraphpatch: record the graph", "bare", {256: 1.30}),
    ("libgraphpatch: probe all", "bare", {256: 1.60}),
]


def against_targets(width: int, times: dict[str, list[float]]) -> None:
    """Compares ratios of times of the same round, so that a slower phase of the machine affects both sides."""
    print(f"\n{f'ratios, {width} wide':52} {'median':>8} {'quartiles':>16} {'target':>8}")
    for name, beside, most in TARGETS:
        measured = next((taken for known, taken in times.items() if known.startswith(name)), None)
        if measured is None:
            continue
        ratios = [taken / other for taken, other in zip(measured, times[beside], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
        target = most.get(width)
        missed = target is not None and median > target
        said = "" if target is None else f"{target:8.3f}{'  MISSED' if missed else ''}"
        label = f"{name} / {'bare' if beside == 'bare' else 'hook'}"
        print(f"{label:52} {median:8.3f} {f'{low:.3f}..{high:.3f}':>16} {said}", flush=True)


# --- measuring ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def bare_calls(plain: Any) -> Iterator[None]:
    """Restores torch's own ``Module.__call__``: libgraphpatch puts a test in front of it when it is first used."""
    import torch

    ours = vars(torch.nn.Module)["__call__"]
    torch.nn.Module.__call__ = plain
    try:
        yield
    finally:
        torch.nn.Module.__call__ = ours


def seconds(run: Run, repeats: int) -> float:
    gc.collect()
    gc.disable()
    try:
        begin = time.perf_counter()
        for _ in range(repeats):
            run()
        return (time.perf_counter() - begin) / repeats
    finally:
        gc.enable()


def measure(modes: list[Mode], rounds: int, at_once: float = 0.02) -> tuple[dict[str, list[float]], int]:
    """Seconds by mode and round, and how many forwards a round has."""
    modes[0][2]()
    repeats = max(1, round(at_once / seconds(modes[0][2], 3)))
    times: dict[str, list[float]] = {name: [] for name, *_ in modes}
    shuffled = random.Random(0)
    for number in range(rounds + 2):
        for name, around, run in shuffled.sample(modes, len(modes)):
            with around():
                run()  # not measured: the first run after a change is slower
                taken = seconds(run, repeats)
            if number >= 2:
                times[name].append(taken)
    return times, repeats


def table(title: str, times: dict[str, list[float]]) -> None:
    print(f"\n{title}\n{'':52} {'median us':>10} {'quartiles us':>18} {'/ bare':>8}")
    bare = statistics.median(next(iter(times.values())))
    for name, taken in times.items():
        low, median, high = (value * 1e6 for value in statistics.quantiles(taken, n=4, method="inclusive"))
        print(f"{name:52} {median:10.1f} {f'{low:.1f}..{high:.1f}':>18} {median / bare / 1e6:8.3f}", flush=True)


def checked(modes: list[Mode]) -> None:
    """Checks that modes that zero the same value agree and differ from the bare model; all others change nothing."""
    import torch

    results = {}
    for name, around, run in modes:
        with around():
            results[name] = run().clone()
    bare, outputs = results["bare"], results["a forward hook that zeroes a module's output"]
    insides = [result for name, result in results.items() if "inner operation" in name]
    assert not torch.allclose(bare, outputs, atol=1e-3)
    for name, result in results.items():
        wanted = outputs if "module's output" in name else insides[0] if "inner operation" in name else bare
        assert torch.allclose(result, wanted, atol=1e-4), f"{name}: a wrong result"
    assert not insides or not torch.allclose(bare, insides[0], atol=1e-3)


def forwards(libraries: list[str], width: int, rounds: int, tokens: int) -> None:
    import torch
    import transformers

    plain = torch.nn.Module.__call__
    model = gpt2(width)
    inputs = {"input_ids": torch.randint(256, (1, tokens)), "use_cache": False}
    modes: list[Mode] = [("bare", lambda: bare_calls(plain), lambda: model(**inputs).logits)]
    modes += hook_modes(model, inputs)
    for library in libraries:
        try:
            modes += MODES[library](model, inputs)
        except Exception as error:  # a library that does not work here must not stop the others from being measured
            print(f"{library} does not work here: {type(error).__name__}: {str(error).splitlines()[0]}")
    checked(modes)
    times, repeats = measure(modes, rounds)
    table(
        f"GPT-2, 6 layers, {width} wide, 1 x {tokens} tokens: torch {torch.__version__}, transformers"
        f" {transformers.__version__}, {rounds} rounds of {repeats}",
        times,
    )
    if "libgraphpatch" in libraries:
        against_targets(width, times)


def operations(rounds: int) -> None:
    """Cost per operation: the difference between chains of two lengths, in which the cost per run cancels out."""
    import torch

    from libgraphpatch import PatchableGraph, ZeroPatch

    class Chain(torch.nn.Module):
        def __init__(self, length: int) -> None:
            super().__init__()
            self.length = length

        def forward(self, x: Any) -> Any:
            for _ in range(self.length):
                x = torch.relu(x)
            return x

    plain, x = torch.nn.Module.__call__, torch.ones(4)
    modes: list[Mode] = []
    for length in (200, 1000):
        chain = Chain(length)
        pg = PatchableGraph(chain, x)
        run = lambda chain=chain: chain(x)
        modes += [
            (f"bare {length}", lambda: bare_calls(plain), run),
            (f"behind {length}", lambda pg=pg: pg.patch({"relu": ZeroPatch()}), run),
            (f"before {length}", lambda pg=pg, last=f"relu_{length - 1}": pg.patch({last: ZeroPatch()}), run),
            (f"recording {length}", pg.recording, run),
        ]
    times, _ = measure(modes, rounds, at_once=0.005)
    print("\nper operation (relu of 4 floats), eager:")
    bare = [(long - short) / 800 for short, long in zip(times["bare 200"], times["bare 1000"])]
    print(f"  {'bare':52} {statistics.median(bare) * 1e9:8.0f} ns")
    for name, about, target in [
        ("behind", "more behind the last one of its kind that a patch names", "150 ns"),
        ("before", "more before it", "150 ns"),
        ("recording", "more while recording", "1000 ns"),
    ]:
        pairs = zip(times[f"{name} 200"], times[f"{name} 1000"], bare)
        more = [((long - short) / 800 - alone) * 1e9 for short, long, alone in pairs]
        low, median, high = statistics.quantiles(more, n=4, method="inclusive")
        print(f"  {about:52} {median:8.0f} ns   quartiles {low:.0f}..{high:.0f}   target {target}")


def first_run(modules: int, pairs: int = 5) -> None:
    """CPU time of the first recorded run of many modules, beside the same run bare; each pair has models of its own."""
    import torch

    from libgraphpatch import PatchableGraph

    class Small(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.relu(x)

    class Many(torch.nn.Module):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.parts = torch.nn.ModuleList(Small() for _ in range(number))

        def forward(self, x: Any) -> Any:
            for part in self.parts:
                x = part(x)
            return x

    def taken(run: Run) -> float:
        gc.collect()
        begin = time.process_time()
        run()
        return time.process_time() - begin

    plain, x = torch.nn.Module.__call__, torch.ones(4)
    PatchableGraph(Many(1), x)  # what is done once in a process is not measured
    bare, recorded = [], []
    for _ in range(pairs):
        model = Many(modules)
        with bare_calls(plain):
            bare.append(taken(lambda: model(x)))
        model = Many(modules)
        recorded.append(taken(lambda: PatchableGraph(model, x)))
    beyond = statistics.median(more - 2 * less for more, less in zip(recorded, bare, strict=True))
    print(f"\nthe first run of {modules} modules with one operation each, CPU time, {pairs} pairs:")
    for name, times in [("bare", bare), ("recorded", recorded)]:
        low, median, high = statistics.quantiles(times, n=4, method="inclusive")
        print(f"  {name:52} {median * 1e3:8.0f} ms   quartiles {low * 1e3:.0f}..{high * 1e3:.0f}")
    print(f"  {'recorded, beyond twice the bare run':52} {beyond * 1e3:8.0f} ms   target 200 ms")


# --- processes ------------------------------------------------------------------------------------------------------


def here(rounds: int, tokens: int) -> None:
    """Measures the libraries that this interpreter can import."""
    import torch

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    libraries = [library for library in LIBRARIES if importlib.util.find_spec(library) is not None]
    for width in WIDTHS:
        forwards(libraries, width, rounds, tokens)
    if "libgraphpatch" in libraries:
        operations(rounds)
        first_run(4000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--here", action="store_true", help="only in this process")
    args = parser.parse_args()
    if args.here:
        return here(args.rounds, args.tokens)

    found: set[str] = set()
    failed = False
    peers = [peer for peer in os.environ.get("GRAPHPATCH_PEERS", "").split(":") if peer]
    look = f"import importlib.util as u; print(*[n for n in {LIBRARIES[1:]} if u.find_spec(n)])"
    for number, interpreter in enumerate([sys.executable, *peers]):
        has = subprocess.run([interpreter, "-c", look], capture_output=True, text=True, check=True).stdout.split()
        found.update(has)
        print(
            f"\n=== {f'interpreter {number} of GRAPHPATCH_PEERS' if number else 'this interpreter'}:"
            f" {', '.join(['libgraphpatch', *has])}",
            flush=True,
        )
        command = [interpreter, __file__, "--here", "--rounds", str(args.rounds), "--tokens", str(args.tokens)]
        failed |= subprocess.run(command, check=False).returncode != 0
    for library in LIBRARIES[1:]:
        if library not in found:
            print(f"\nmissing: {library}; name an interpreter that has it in GRAPHPATCH_PEERS")
    sys.exit(failed)


if __name__ == "__main__":
    main()
