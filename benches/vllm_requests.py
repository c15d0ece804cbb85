"""What a steered request of vLLM costs, next to a forward hook of PyTorch that does the same, and to a bare batch.

    benches/vllm_requests.py [--rounds N] [--hidden N] [--layers N] [--requests N]

One process has the whole engine, with the plugin. In each round the same batch is generated bare, with a hook that adds
a vector to the rows of its first request, and with a patch of the first request that does. Ratios are paired by round:
medians and quartiles. `make bench-vllm` runs it.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

TOKENS = 64
PROMPT = [*range(5, 21)]


def model(folder: Path, hidden: int, layers: int) -> Path:
    """A Llama with random weights. Prompts are tokens, so it needs no tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        vocab_size=1024,
        max_position_embeddings=256,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


class Batch:
    """A batch that is generated again and again."""

    def __init__(self, llm: Any, layer: str, requests: int, vector: torch.Tensor) -> None:
        from vllm import SamplingParams

        self.llm, self.layer, self.vector = llm, layer, vector
        usual = {"max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "detokenize": False}
        patch = {"path": f"{layer}.output|sub_0", "kind": "add", "value": "@v.safetensors#v"}
        bare = SamplingParams(**usual)
        steered = SamplingParams(**usual, extra_args={"graphpatch": [patch]})
        self.params = {"bare": [bare] * requests, "steered": [steered, *[bare] * (requests - 1)]}
        self.params["hook"] = self.params["bare"]
        self.prompts: Any = [{"prompt_token_ids": PROMPT}] * requests

    def seconds(self, kind: str) -> tuple[float, list[int]]:
        """How long the batch takes, and the tokens of its first request."""
        if kind == "hook":
            (handle,) = self.llm.apply_model(self.install)
        begun = time.perf_counter()
        outputs = self.llm.generate(self.prompts, self.params[kind], use_tqdm=False)
        took = time.perf_counter() - begun
        if kind == "hook":
            handle.remove()
        return took, [*outputs[0].outputs[0].token_ids]

    def install(self, module: torch.nn.Module) -> Any:
        """The first rows of the batch are its first request's: the prompt's tokens, then one in each step."""
        requests = len(self.prompts)

        def hook(_module: torch.nn.Module, _args: Any, output: tuple[torch.Tensor, Any]) -> Any:
            changed = output[0].clone()
            rows = 1 if len(changed) == requests else len(PROMPT)
            changed[:rows] += self.vector
            return changed, *output[1:]

        layer = self.layer.replace("layers_", "layers.")
        return module.get_submodule(layer).register_forward_hook(hook)


def quartiles(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, usual in [("rounds", 30), ("hidden", 256), ("layers", 8), ("requests", 8)]:
        parser.add_argument(f"--{name}", type=int, default=usual)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        torch.manual_seed(0)
        vector = torch.randn(asked.hidden) * 4
        save_file({"v": vector}, folder / "v.safetensors")
        os.environ.update(GRAPHPATCH_VLLM=made, VLLM_ENABLE_V1_MULTIPROCESSING="0")
        from vllm import LLM

        llm = LLM(
            model=str(model(folder / "model", asked.hidden, asked.layers)),
            skip_tokenizer_init=True,
            dtype="float32",
            max_model_len=256,
            enforce_eager=True,
            enable_prefix_caching=False,
            distributed_executor_backend="uni",
        )
        batch = Batch(llm, f"model.layers_{asked.layers // 2}", asked.requests, vector)
        kinds = ["bare", "hook", "steered"]
        first = {kind: batch.seconds(kind)[1] for kind in [*kinds, *kinds]}
        assert first["hook"] == first["steered"] != first["bare"], first
        rounds = [
            {kind: batch.seconds(kind)[0] for kind in (kinds if number % 2 else kinds[::-1])}
            for number in range(asked.rounds)
        ]
        step = statistics.median(one["bare"] for one in rounds) / TOKENS * 1e3
        print(f"{asked.layers} layers of {asked.hidden}, {asked.requests} requests: a step takes {step:.2f} ms bare")
        for kind, to in [("hook", "bare"), ("steered", "bare"), ("steered", "hook")]:
            print(f"{kind:>8} / {to:<5} {quartiles([one[kind] / one[to] for one in rounds])}")


if __name__ == "__main__":
    main()
