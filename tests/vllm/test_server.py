"""vLLM's OpenAI server with the plugin, asked over HTTP."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from support import wait_until
from test_batches import LAYER, OUTPUT, PROMPTS, STEER, patch, request


class Server:
    """A server on a port of its own."""

    def __init__(self, model: Path, environment: dict[str, str], log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        options = ["--enforce-eager", "--dtype", "float32", "--max-model-len", "256", "--port", str(self.port)]
        command = [
            sys.executable,
            "-m",
            "vllm.entrypoints.openai.api_server",  # what `vllm serve` runs
            "--model",
            model,
            "--served-model-name",
            "tiny",
            *options,
        ]
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [str(word) for word in command], env=environment, stdout=out, stderr=out, start_new_session=True
            )
        wait_until(self._listens, "the server")

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-8000:]
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).status == 200
        except OSError:
            return False

    def ask(self, where: str = "completions", **body: Any) -> tuple[int, Any]:
        """The status and the answer."""
        whole = {
            "model": "tiny",
            "max_tokens": 12,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
            **body,
        }
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/{where}", json.dumps(whole).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)

    def stream(self, **body: Any) -> list[Any]:
        """The parts of a streamed answer."""
        whole = {"model": "tiny", "max_tokens": 12, "temperature": 0, "ignore_eos": True, "stream": True, **body}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/completions",
            json.dumps(whole).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            lines = answer.read().decode().split("\n\n")
        return [json.loads(line.removeprefix("data: ")) for line in lines if line and line != "data: [DONE]"]

    def tokens(self, number: int, *patches: Any) -> list[int]:
        more = {"vllm_xargs": {"graphpatch": [*patches]}} if patches else {}
        status, answer = self.ask(prompt=PROMPTS[number], **more)
        assert status == 200, answer
        return answer["choices"][0]["token_ids"]

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait()


@pytest.fixture(scope="module")
def server(
    model: Path, environment: Callable[..., dict[str, str]], values: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    made = Server(model, environment(values), tmp_path_factory.mktemp("log") / "server.log")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def offline(generate: Callable[..., Any], values: Path) -> list[Any]:
    """What vLLM without us generates: eight prompts, each alone, and one of them with a hook that adds the vector."""
    vector = load_file(values / "steer.safetensors")["v"].tolist()
    hook = {"module": LAYER, "kind": "add", "value": vector}
    return generate([*([request(number)] for number in range(8)), {"requests": [request(3)], "hook": hook}])


@pytest.fixture
def bare_tokens(offline: list[Any]) -> list[list[int]]:
    return [one[0]["tokens"] for one in offline[:8]]


@pytest.fixture
def hooked_tokens(offline: list[Any]) -> list[int]:
    return offline[8][0]["tokens"]


def test_one_of_eight_requests_is_steered_and_the_others_are_not(
    server: Server, bare_tokens: list[list[int]], hooked_tokens: list[int]
) -> None:
    steering = {"path": OUTPUT, "kind": "add", "value": STEER}
    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(lambda number: server.tokens(number, *([steering] if number == 3 else [])), range(8))]
    for number, tokens in enumerate(answers):
        assert tokens == (hooked_tokens if number == 3 else bare_tokens[number]), number


def test_a_bad_patch_is_answered_as_a_bad_request(server: Server, bare_tokens: list[list[int]]) -> None:
    for patches, why in [
        ([patch("zero", "model.layers_2.outptu")], "model.layers_2.output"),
        ([patch(value="@../steer.safetensors#v")], "outside of the server's folder"),
        ("[{", "is no JSON"),
    ]:
        status, answer = server.ask(prompt=PROMPTS[0], vllm_xargs={"graphpatch": patches})
        assert status == 400 and why in answer["error"]["message"], answer
    refused = {"vllm_xargs": {"graphpatch": [patch("zero")]}}
    for more, why in [
        ({"prompt": PROMPTS[0], "use_beam_search": True, "n": 2}, "beam search"),
        ({"prompt": PROMPTS[:2]}, "one prompt"),
    ]:
        status, answer = server.ask(**refused, **more)
        assert status == 400 and why in answer["error"]["message"], answer
    assert server.tokens(0) == bare_tokens[0]


def test_values_come_back_with_the_answer(server: Server, values: Path) -> None:
    probe = json.dumps([patch("probe", positions="last")])  # as text, which servers without objects take, too
    status, answer = server.ask(prompt=PROMPTS[5], vllm_xargs={"graphpatch": probe})
    assert status == 200 and answer["graphpatch"]["patches"] == [
        {"path": OUTPUT, "kind": "probe", "applied": 12, "failed": 0}
    ]
    assert answer["kv_transfer_params"] is None
    assert load_file(values / answer["graphpatch"]["kept"])[OUTPUT].shape == (12, 64)
    said = [{"role": "user", "content": "hello"}]
    status, answer = server.ask("chat/completions", messages=said, vllm_xargs={"graphpatch": [patch("probe", steps=0)]})
    assert (
        status == 200
        and len(load_file(values / answer["graphpatch"]["kept"])[OUTPUT]) == answer["usage"]["prompt_tokens"]
    )


def test_a_stream_ends_with_what_came_of_the_patches(server: Server) -> None:
    parts = server.stream(prompt=PROMPTS[2], vllm_xargs={"graphpatch": [patch("zero", positions="generated")]})
    assert parts[-1]["graphpatch"]["patches"][0]["applied"] == 11 and parts[-1]["choices"] == []
    parts = server.stream(prompt=PROMPTS[2])
    assert all("graphpatch" not in part for part in parts)


def test_a_string_that_stops_a_text_loses_no_report(server: Server) -> None:
    whole = server.ask(prompt=PROMPTS[2], vllm_xargs={"graphpatch": [patch("zero")]})[1]["choices"][0]["text"]
    stop = {"stop": whole[4:6], "ignore_eos": False}
    status, answer = server.ask(prompt=PROMPTS[2], vllm_xargs={"graphpatch": [patch("zero")]}, **stop)
    assert status == 200 and answer["choices"][0]["finish_reason"] == "stop"
    assert 0 < answer["graphpatch"]["patches"][0]["applied"] < 12
    status, answer = server.ask(prompt=PROMPTS[2], vllm_xargs={"graphpatch": [patch("probe")]}, **stop)
    assert status == 400 and "stop_token_ids" in answer["error"]["message"]


def test_prefix_caching_is_on_and_a_steered_request_stays_apart(server: Server) -> None:
    """The server has prefix caching, as by default. The same long prompt bare, steered, steered, bare, and steered otherwise."""
    long = [5 + number % 200 for number in range(200)]
    steering = {"vllm_xargs": {"graphpatch": [patch(value=STEER, scale=0.5)]}}
    other = {"vllm_xargs": {"graphpatch": [patch(value=STEER, scale=0.5, positions="prompt")]}}
    tokens = [
        server.ask(prompt=long, **more)[1]["choices"][0]["token_ids"] for more in ({}, steering, steering, {}, other)
    ]
    assert tokens[0] == tokens[3] != tokens[1] == tokens[2]
    fresh = [
        server.ask(prompt=long, cache_salt="fresh", **more)[1]["choices"][0]["token_ids"]
        for more in ({}, steering, other)
    ]
    assert fresh == [tokens[0], tokens[1], tokens[4]]
