"""Requests with patches in the batches of a real vLLM: each is what a forward hook of PyTorch on a vLLM without us gives, and all others
are what they are there, bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

LAYER = "model.layers.2"
OUTPUT = "model.layers_2.output|sub_0"
PROMPTS = [[5 + 7 * number + step for step in range(3 + number % 5)] for number in range(8)]
STEER = "@steer.safetensors#v"


def vector(folder: Path) -> list[float]:
    return load_file(folder / "steer.safetensors")["v"].tolist()


def request(number: int, *patches: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"prompt": PROMPTS[number], **({"extra": {"graphpatch": [*patches]}} if patches else {}), **more}


def patch(kind: str = "add", path: str = OUTPUT, **more: Any) -> dict[str, Any]:
    return {"path": path, "kind": kind, **more}


def cases(folder: Path) -> dict[str, tuple[int, dict[str, Any], dict[str, Any]]]:
    """For each name the number of a prompt, a patch, and the same for a hook on a module."""
    whole = vector(folder)
    add = {"module": LAYER, "kind": "add"}
    prompt = len(PROMPTS[4])
    return {
        "everywhere": (3, patch(value=STEER), {**add, "value": whole}),
        "scaled": (4, patch(value="@steer.pt", scale=-2), {**add, "value": [-2 * x for x in whole]}),
        "gguf": (1, patch(value="@steer.gguf#direction.2"), {**add, "value": whole}),
        "prompt": (4, patch(value=STEER, positions="prompt"), {**add, "value": whole, "spans": [[0, prompt]]}),
        "generated": (4, patch(value=STEER, positions="generated"), {**add, "value": whole, "spans": [[prompt, 999]]}),
        "from": (4, patch(value=STEER, positions="9.."), {**add, "value": whole, "spans": [[9, 999]]}),
        "some": (4, patch(value=STEER, positions=[1, 9]), {**add, "value": whole, "spans": [[1, 2], [9, 10]]}),
        "steps": (4, patch(value=STEER, steps="1..3"), {**add, "value": whole, "spans": [[prompt, prompt + 2]]}),
        "slice": (2, patch(value=9, slice="[:8]"), {**add, "value": 9.0, "slice": [8]}),
        "zero": (
            5,
            patch("zero", "model.layers_2.mlp.down_proj.output|sub_0"),
            {"module": f"{LAYER}.mlp.down_proj", "kind": "zero"},
        ),
        "replace": (
            6,
            patch("replace", "model.layers_1.mlp.act_fn.output", value=0.25, positions="1.."),
            {"module": "model.layers.1.mlp.act_fn", "kind": "replace", "value": 0.25, "spans": [[1, 999]]},
        ),
    }


@pytest.fixture(scope="module")
def bare(generate: Callable[..., Any], values: Path) -> dict[str, Any]:
    """What vLLM without us generates: the batch of eight, and each request of `cases` alone, with a hook."""
    hooked = {name: {"requests": [request(number)], "hook": hook} for name, (number, _, hook) in cases(values).items()}
    probe = {"requests": [request(7)], "hook": {"module": LAYER, "kind": "probe", "spans": []}}
    batches = [[request(number) for number in range(8)], *hooked.values(), probe]
    return dict(zip(["eight", *hooked, "probe"], generate(batches), strict=True))


BAD = {
    "a path that is not there": (patch(path="model.layers_2.outptu", value=1), "model.layers_2.output"),
    "a file that is not there": (patch(value="@none.safetensors#v"), "none.safetensors"),
    "a file of others": (patch(value="@../../etc/hostname"), "outside of the server's folder"),
    "a key that is not there": (patch(value="@steer.safetensors#w"), "there"),
    "a value that does not fit": (patch(value="@steer.safetensors#wrong"), "does not broadcast"),
    "a kind that is none": (patch("adds", value=1), "kind is one of zero, add, replace, probe"),
    "a key that is none": (patch(value=1, where=3), "where: is not known"),
    "no value": (patch("add"), "takes a value"),
    "positions that are none": (patch(value=1, positions="first"), "positions='first'"),
    "a parameter": (patch("zero", "model.embed_tokens.weight"), "which all requests share"),
    "a slice that does not fit": (patch("zero", slice="[999]"), "999"),
}


@pytest.fixture(scope="module")
def steered(generate: Callable[..., Any], values: Path) -> dict[str, Any]:
    """The same with us: the batch of eight without patches; with one that is patched; and all cases in one batch."""
    every = cases(values)
    one = [request(number, *([every["everywhere"][1]] if number == 3 else [])) for number in range(8)]
    probes = [
        patch("probe"),
        patch("probe", "model.layers_0.output|sub_0", positions="last"),
        patch("probe", OUTPUT, steps=0),
    ]
    batches = {
        "eight": [request(number) for number in range(8)],
        "one of eight": one,
        "all": [request(number, done) for number, done, _ in every.values()],
        "probe": [request(7, *probes)],
        "probe among others": [request(number, *(probes if number == 7 else [])) for number in range(8)],
        **{name: [request(0, done)] for name, (done, _) in BAD.items()},
        "again": [request(number) for number in range(8)],
    }
    return dict(zip(batches, generate([*batches.values()], values), strict=True))


def test_a_server_with_us_computes_the_same(bare: dict[str, Any], steered: dict[str, Any]) -> None:
    for name in ("eight", "again"):
        assert [one["tokens"] for one in steered[name]] == [one["tokens"] for one in bare["eight"]]
        assert [one["logprobs"] for one in steered[name]] == [one["logprobs"] for one in bare["eight"]]


def test_the_requests_beside_a_patched_one_are_bit_identical(bare: dict[str, Any], steered: dict[str, Any]) -> None:
    for number, (with_us, without) in enumerate(zip(steered["one of eight"], bare["eight"], strict=True)):
        same = with_us["tokens"] == without["tokens"] and with_us["logprobs"] == without["logprobs"]
        assert same == (number != 3), number
    assert steered["one of eight"][3]["tokens"] == bare["everywhere"][0]["tokens"]


def test_each_request_of_a_batch_has_its_own_patch(bare: dict[str, Any], steered: dict[str, Any], values: Path) -> None:
    for name, one in zip(cases(values), steered["all"], strict=True):
        expected = bare[name][0]
        assert one["tokens"] == expected["tokens"], name
        for mine, theirs in zip(one["logprobs"], expected["logprobs"], strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-4), name
        (told,) = one["told"]["patches"]
        assert told["failed"] == 0 and told["applied"] > 0 and "errors" not in one["told"], one["told"]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_patch_is_refused_and_the_engine_goes_on(name: str, steered: dict[str, Any]) -> None:
    why = steered[name]
    assert isinstance(why, str) and "graphpatch[0]: " in why and BAD[name][1] in why, why


@pytest.mark.parametrize("name", ["probe", "probe among others"])
def test_a_probe_keeps_what_a_hook_sees(name: str, bare: dict[str, Any], steered: dict[str, Any], values: Path) -> None:
    one = steered[name][-1]
    kept = load_file(values / one["told"]["kept"])
    seen = torch.tensor(bare["probe"][0]["seen"])
    prompt = len(PROMPTS[7])
    assert kept[f"{OUTPUT}#positions"].tolist() == list(range(prompt + 11))
    assert torch.allclose(kept[OUTPUT], seen, rtol=1e-5, atol=1e-5)
    if name == "probe":
        assert torch.equal(kept[OUTPUT], seen)
    assert kept["model.layers_0.output|sub_0#positions"].tolist() == list(range(prompt - 1, prompt + 11))
    assert torch.equal(kept[f"{OUTPUT}~2"], kept[OUTPUT][:prompt])
    assert one["tokens"] == bare["probe"][0]["tokens"]


def test_the_graph_of_the_server_is_a_file(steered: dict[str, Any], values: Path) -> None:
    import libgraphpatch

    (file,) = (values / "graphs").glob("*.json")
    assert "layers_2" in repr(libgraphpatch.load_graph(file).model)
