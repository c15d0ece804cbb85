"""An ordinary script that runs a small GPT-2."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.manual_seed(0)
model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=32, n_head=4, vocab_size=100, n_positions=32)).eval()
with torch.no_grad():
    print(model(torch.arange(8)[None]).logits.shape)
