"""The modules that the tests export to TorchScript. Sizes are constants, so that no size queries become nodes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH, TOKENS, HEADS, WIDTH, VOCAB = 2, 5, 2, 8, 17
HEAD_WIDTH = WIDTH // HEADS
# TorchScript cannot read global numbers, so the forwards repeat them: a view's 2, 5, 2 and 4 are the sizes above.


class TupleOutputModule(nn.Module):
    """One Linear called twice, with a tuple as output. Its tree is below."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.linear(x), self.linear(x + 1)


# The tree of the graph of TupleOutputModule.
TUPLE_OUTPUT_TREE = """\
<root>: Graph(5)
├─x: Tensor(3, 2)
├─linear: Graph(5)
│ ├─input: Tensor(3, 2)
│ ├─weight: Tensor(3, 2)
│ ├─bias: Tensor(3)
│ ├─linear: Tensor(3, 3)
│ └─output: Tensor(3, 3)
├─add: Tensor(3, 2)
├─linear_1: Graph(5)
│ ├─input: Tensor(3, 2)
│ ├─weight: Tensor(3, 2)
│ ├─bias: Tensor(3)
│ ├─linear: Tensor(3, 3)
│ └─output: Tensor(3, 3)
└─output: tuple(2)
  ├─sub_0: Tensor(3, 3)
  └─sub_1: Tensor(3, 3)
"""


class Attention(nn.Module):
    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.dropout = nn.Dropout(0.1)
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("mask", torch.ones(TOKENS, TOKENS).triu(1).bool())

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q = q.view(2, 5, 2, 4).transpose(1, 2)
        k = k.view(2, 5, 2, 4).transpose(1, 2)
        v = v.view(2, 5, 2, 4).transpose(1, 2)
        scores = torch.matmul(q, k.transpose(-2, -1)) / 2.0
        scores = scores.masked_fill(self.mask.expand(2, 2, 5, 5), -10000.0)
        weights = self.dropout(torch.softmax(scores, dim=-1))
        return self.proj(torch.matmul(weights, v).transpose(1, 2).reshape(2, 5, 8))


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, 2 * WIDTH)
        self.down = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(hidden)))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(WIDTH)
        self.attn = Attention()
        self.ln2 = nn.LayerNorm(WIDTH)
        self.mlp = Mlp()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class Transformer(nn.Module):
    """A small decoder: a ModuleList of blocks, a parameter of its own, and two kinds of container (chunk, topk)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.pos = nn.Parameter(torch.randn(TOKENS, WIDTH))
        self.layers = nn.ModuleList([Block(), Block()])
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.embed(ids) + self.pos
        for layer in self.layers:
            x = layer(x)
        logits = self.head(self.norm(x))
        values, indices = logits.topk(3)
        return logits, values, indices


def transformer() -> tuple[Transformer, tuple[Tensor]]:
    torch.manual_seed(0)
    # The ids are below VOCAB - 1, so that they are still valid after the patch add:1.
    ids = torch.randint(0, VOCAB - 1, (BATCH, TOKENS))
    return Transformer().eval(), (ids,)


class InPlace(nn.Module):
    """relu_ and add_ write into a fresh value, mul_ into one that a view (head) also shows."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.linear(x).relu_()
        y.add_(1.0)
        head = y[0]
        y.mul_(2.0)
        return y, head


class Shared(nn.Module):
    """Each value that a patch may touch has a second reader of the same memory, which must not see the change."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        base = x * 2.0
        parts = base.chunk(2, dim=1)
        return (
            self.dropout(base) + 1.0,
            base.view(6, 4) + 1.0,
            base.transpose(0, 1) + 1.0,
            base[0].expand(3, 6) + 1.0,
            parts[1] + parts[0],
            self.weight.transpose(0, 1) + 1.0,
            base + self.weight,
        )


class Containers(nn.Module):
    """Lists and tuples from operations, from an inner module and at the root."""

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        parts = x.split(2, dim=1)
        values, indices = parts[0].topk(2, dim=0)
        return [parts[0] + 1.0, parts[1] + 1.0], values, indices


class DictOutput(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"double": x * 2.0, "half": x / 2.0}


class NumberedOutput(nn.Module):
    def forward(self, x: Tensor) -> dict[int, Tensor]:
        return {1: x * 2.0, -5: x / 2.0}


class FlaggedOutput(nn.Module):
    def forward(self, x: Tensor) -> dict[bool, Tensor]:
        return {True: x * 2.0, False: x / 2.0}


class MeasuredOutput(nn.Module):
    def forward(self, x: Tensor) -> dict[float, Tensor]:
        return {0.5: x * 2.0, 1.5: x / 2.0}


class Branches(nn.Module):
    def helped(self, x: Tensor) -> Tensor:
        return x.sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        y = x - 1.0
        if bool(x.sum() > -100.0):
            y = self.helped(y * 2.0)
        for _ in range(2):
            y = self.helped(y).relu()
        return y


class OptionalInput(nn.Module):
    def forward(self, x: Tensor, bias: Tensor | None = None, scale: float = 3.0) -> Tensor:
        y = x * scale
        if bias is not None:
            y = y + bias
        return y.relu()


class Steps(nn.Module):
    """A fresh value, a strided view and a contiguous copy, by operations that exist for every dtype."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fresh = x.clone()
        turned = fresh.transpose(0, 1)
        return fresh, turned.contiguous()


class Names(nn.Module):
    """Nodes whose names need a suffix or a prefix: operations named like builtins, and children of a Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.seq = nn.Sequential(nn.Linear(3, 3), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.seq(x).pow(2.0).sum(0) + x.sum(1) + x.abs().max()


class Loop(nn.Module):
    """Control flow: the number of steps and the branch depend on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, steps: int) -> Tensor:
        for i in range(steps):
            if i % 2 == 0:
                x = self.linear(x)
            else:
                x = torch.tanh(x)
        return x


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = Mlp()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(x)


class Encoder(nn.Module):
    """Unlike Transformer, takes batches of any size and length."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.layers = nn.ModuleList([Layer(), Layer()])
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.embed(ids)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.head(hidden.mean(1))
