"""Has vLLM generate without a server. Standard input is a JSON object: `model`, `options` of LLM, and `batches`, each a list of
requests (`prompt`, and what else: `extra`, `stop`). Standard output is, for each batch, the list of what came of its requests, or the
error by which it was refused.

A batch may be an object that has `hook` beside `requests`: the name of a layer's part and what a forward hook of PyTorch does to its
output, in which the requests of the batch are one after the other (there is one).
"""

import json
import sys
from typing import Any

import torch
from vllm import LLM, SamplingParams


class Hook:
    """A forward hook on a module of a model that computes one request: its calls get the prompt first, then token after token."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec, self.position = spec, 0
        self.seen: list[torch.Tensor] = []

    def __call__(self, module: torch.nn.Module, args: Any, output: Any) -> Any:
        value = output[0] if isinstance(output, tuple) else output
        first, self.position = self.position, self.position + len(value)
        self.seen.append(value.clone())
        changed = value.clone()
        for row in range(len(value)):
            if any(low <= first + row < high for low, high in self.spec.get("spans", [[0, 10**9]])):
                self.change(changed[row])
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    def change(self, row: torch.Tensor) -> None:
        part = row[slice(*self.spec.get("slice", [None]))]
        kind, value = self.spec["kind"], torch.tensor(self.spec.get("value", 0.0))
        if kind == "add":
            part += value
        elif kind != "probe":
            part[:] = value


def hooked(llm: LLM, spec: dict[str, Any]) -> Any:
    hook = Hook(spec)

    def install(model: torch.nn.Module) -> Any:
        return model.get_submodule(spec["module"]).register_forward_hook(hook)

    (handle,) = llm.apply_model(install)
    return hook, handle


def generate(llm: LLM, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    params = [
        SamplingParams(
            max_tokens=one.get("tokens", 12),
            temperature=0,
            ignore_eos=True,
            logprobs=1,
            n=one.get("n", 1),
            stop=one.get("stop"),
            extra_args=one.get("extra"),
        )
        for one in requests
    ]
    prompts: Any = [{"prompt_token_ids": one["prompt"]} for one in requests]
    found = []
    for output in llm.generate(prompts, params, use_tqdm=False):
        first = output.outputs[0]
        numbers = [{token: each.logprob for token, each in place.items()} for place in first.logprobs or []]
        told = (output.kv_transfer_params or {}).get("graphpatch")
        found.append(
            {"tokens": [*first.token_ids], "logprobs": numbers, "told": told, "cached": output.num_cached_tokens}
        )
    return found


def main() -> None:
    job = json.load(sys.stdin)
    llm = LLM(model=job["model"], dtype="float32", max_model_len=256, seed=0, **job["options"])
    results: list[Any] = []
    for batch in job["batches"]:
        spec = batch.get("hook") if isinstance(batch, dict) else None
        hook, handle = hooked(llm, spec) if spec else (None, None)
        try:
            results.append(generate(llm, batch["requests"] if isinstance(batch, dict) else batch))
        except ValueError as error:
            results.append(str(error))
        if hook is not None:
            handle.remove()
            results[-1][0]["seen"] = torch.cat(hook.seen).tolist()
    json.dump(results, sys.__stdout__)
    sys.__stdout__.flush()


if __name__ == "__main__":
    main()
