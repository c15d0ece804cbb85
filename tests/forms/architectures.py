"""Six small models with random weights, each beside its input. The GPT is the one of the C++ example."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from cpp_models import Gpt

WIDTH, WORDS, TOKENS = 16, 40, 6


class SelfAttention(nn.Module):
    """Attention of an encoder: operation by operation, with a mask that is added."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 2
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.dropout = nn.Dropout(0.1)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        batch, tokens, width = hidden.shape
        each = width // self.heads
        query = self.query(hidden).view(batch, tokens, self.heads, each).transpose(1, 2)
        key = self.key(hidden).view(batch, tokens, self.heads, each).transpose(1, 2)
        value = self.value(hidden).view(batch, tokens, self.heads, each).transpose(1, 2)
        scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(each) + mask
        weights = self.dropout(functional.softmax(scores, dim=-1))
        return torch.matmul(weights, value).permute(0, 2, 1, 3).contiguous().view(batch, tokens, width)


class Residual(nn.Module):
    """A linear layer, dropout, and a norm behind the sum."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.dense, self.dropout, self.norm = nn.Linear(inner, WIDTH), nn.Dropout(0.1), nn.LayerNorm(WIDTH)

    def forward(self, hidden: Tensor, before: Tensor) -> Tensor:
        return self.norm(self.dropout(self.dense(hidden)) + before)


class BertLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.mixed = SelfAttention(), Residual(WIDTH)
        self.intermediate, self.output = nn.Linear(WIDTH, 2 * WIDTH), Residual(2 * WIDTH)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        hidden = self.mixed(self.attention(hidden, mask), hidden)
        return self.output(functional.gelu(self.intermediate(hidden)), hidden)


class Bert(nn.Module):
    """An encoder with a mask for padding, and a pooled result beside the hidden states."""

    positions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.kinds = (nn.Embedding(count, WIDTH) for count in (WORDS, 8, 2))
        self.norm, self.dropout = nn.LayerNorm(WIDTH), nn.Dropout(0.1)
        self.layer = nn.ModuleList([BertLayer(), BertLayer()])
        self.pooler, self.classifier = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)
        self.register_buffer("positions", torch.arange(8).unsqueeze(0))

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        mask = (ids == 0).unsqueeze(1).unsqueeze(2) * -10000.0
        hidden = self.words(ids) + self.kinds(torch.zeros_like(ids))
        hidden = self.dropout(self.norm(hidden + self.places(self.positions[:, : ids.size(1)])))
        for layer in self.layer:
            hidden = layer(hidden, mask)
        return hidden, self.classifier(torch.tanh(self.pooler(hidden[:, 0])))


class RmsNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(WIDTH) + 0.5)

    def forward(self, hidden: Tensor) -> Tensor:
        variance = hidden.to(torch.float32).pow(2).mean(-1, keepdim=True)
        return self.weight * (hidden * torch.rsqrt(variance + 1e-6))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The rotary embedding of queries or keys."""
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class GroupedAttention(nn.Module):
    """One head of keys and values for all heads of queries."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.each = 2, WIDTH // 2
        self.q_proj, self.o_proj = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.k_proj, self.v_proj = nn.Linear(WIDTH, self.each, bias=False), nn.Linear(WIDTH, self.each, bias=False)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, tokens, width = hidden.shape
        query = rotated(self.q_proj(hidden).view(batch, tokens, self.heads, self.each).transpose(1, 2), cos, sin)
        key = rotated(self.k_proj(hidden).view(batch, tokens, 1, self.each).transpose(1, 2), cos, sin)
        value = self.v_proj(hidden).view(batch, tokens, 1, self.each).transpose(1, 2)
        key = key.expand(batch, self.heads, tokens, self.each)
        value = value.expand(batch, self.heads, tokens, self.each)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class LlamaMlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(WIDTH, 24, bias=False), nn.Linear(WIDTH, 24, bias=False)
        self.down_proj, self.act = nn.Linear(24, WIDTH, bias=False), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))


class LlamaLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm, self.self_attn = RmsNorm(), GroupedAttention()
        self.post_attention_layernorm, self.mlp = RmsNorm(), LlamaMlp()

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), cos, sin)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class Llama(nn.Module):
    """A decoder with rotary positions, grouped keys and a gated MLP; the head is the embedding's weight."""

    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList([LlamaLayer(), LlamaLayer()])
        self.norm, self.lm_head = RmsNorm(), nn.Linear(WIDTH, WORDS, bias=False)
        self.lm_head.weight = self.embed_tokens.weight
        self.register_buffer("frequencies", 1.0 / 10000.0 ** (torch.arange(0, WIDTH // 2, 2) / (WIDTH // 2)))

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        angles = places.unsqueeze(-1) * self.frequencies
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos(), angles.sin()
        hidden = self.embed_tokens(ids)
        for layer in self.layers:
            hidden = layer(hidden, cos, sin)
        return self.lm_head(self.norm(hidden))


class BasicBlock(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn1, self.bn2, self.relu = nn.BatchNorm2d(outer), nn.BatchNorm2d(outer), nn.ReLU(inplace=True)
        self.downsample = nn.Identity()
        if inner != outer:
            self.downsample = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    """Convolutions, and operations that write into their operands."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(8, 8, 1), BasicBlock(8, 8, 1))
        self.layer2 = nn.Sequential(BasicBlock(8, 16, 2), BasicBlock(16, 16, 1))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class VitBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = 2
        self.norm1, self.qkv, self.proj = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 24), nn.GELU(), nn.Dropout(0.1), nn.Linear(24, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.mlp(self.norm2(x))


class Vit(nn.Module):
    """Patches of an image, a class token and learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)
        self.token, self.places = nn.Parameter(torch.randn(1, 1, WIDTH)), nn.Parameter(torch.randn(1, 17, WIDTH))
        self.blocks = nn.ModuleList([VitBlock(), VitBlock()])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), dim=1) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class Lstm(nn.Module):
    """A recurrent language model of two layers; it also returns its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(WORDS, WIDTH), nn.LSTM(WIDTH, 12, num_layers=2, batch_first=True)
        self.drop, self.head = nn.Dropout(0.1), nn.Linear(12, WORDS)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        hidden, state = self.lstm(self.embed(ids))
        return torch.log_softmax(self.head(self.drop(torch.tanh(hidden))), dim=-1), state[1]


def _words() -> Tensor:
    ids = torch.randint(1, WORDS, (2, TOKENS))
    ids[1, -2:] = 0  # padding
    return ids


def _image(size: int) -> Tensor:
    return torch.randn(2, 3, size, size)


def _made(kind: Callable[[], nn.Module], given: Callable[[], Tensor]) -> Callable[[], tuple[nn.Module, Tensor]]:
    def make() -> tuple[nn.Module, Tensor]:
        torch.manual_seed(0)
        model, x = kind().eval(), given()
        with torch.no_grad():  # norms and biases must not be one and zero, or a lost patch would not show
            for name, value in model.state_dict().items():
                if value.is_floating_point() and name != "frequencies":
                    value.add_(torch.rand_like(value) * 0.1)
        return model, x

    return make


MODELS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "GPT": _made(Gpt, _words),
    "BERT": _made(Bert, _words),
    "Llama": _made(Llama, _words),
    "ResNet": _made(ResNet, lambda: _image(32)),
    "ViT": _made(Vit, lambda: _image(16)),
    "LSTM": _made(Lstm, _words),
}
