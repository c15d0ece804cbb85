"""What the interventions are made on: a GPT-2 of two layers with random weights, and the names that all spellings may use."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

import libgraphpatch
from libgraphpatch import PatchableGraph


def scene() -> dict[str, Any]:
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2, n_embd=32, n_head=2, n_positions=24, vocab_size=48, attn_implementation="eager", eos_token_id=None
    )
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    x, clean, corrupted = torch.randint(1, 47, (3, 2, 8))
    vector = torch.nn.functional.normalize(torch.randn(32), dim=0)
    return {
        "torch": torch,
        **{name: getattr(libgraphpatch, name) for name in libgraphpatch.__all__},
        **{"model": model, "H": model.transformer.h, "pg": PatchableGraph(model, x)},
        **{"x": x, "clean": clean, "corrupted": corrupted, "vector": vector, "noise": torch.randn(2, 3, 32)},
        "basis": torch.linalg.qr(torch.randn(32, 2)).Q,
        **{"sae": nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32)), "lora": nn.Linear(32, 32)},
        "metric": lambda output: output.logits[:, -1, 7].sum(),
    }
