"""An ordinary inference program: embeds sentences that come as token ids, and prints how similar neighboring ones are.

infer MODEL.pt TOKENS.txt
"""

import sys

import torch


def embed(model: torch.jit.ScriptModule, line: str) -> torch.Tensor:
    tokens = torch.tensor([[int(word) for word in line.split()]])
    mean = model(tokens, torch.ones_like(tokens))[0].mean(0)
    return mean / mean.norm()


def main() -> None:
    model = torch.jit.load(sys.argv[1]).eval()
    with open(sys.argv[2], encoding="ascii") as file, torch.no_grad():
        vectors = [embed(model, line) for line in file]
    for i in range(0, len(vectors) - 1, 2):
        print(f"sentences {i + 1} and {i + 2}: similarity {vectors[i].dot(vectors[i + 1]).item():.6f}")


if __name__ == "__main__":
    main()
