"""What the tests of the vLLM plugin share: vLLM, which `make test-vllm` puts into build/vllm-tests, a tiny model, and the package as pip
installs it, since vLLM finds plugins by what is installed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from support import ENVIRONMENT, ROOT, TIMEOUT

INSTALLED = ROOT / "build/vllm-tests"
HERE = Path(__file__).parent
HIDDEN, LAYERS, VOCABULARY = 64, 4, 300

# Last in the path, so that what the environment has comes from there.
sys.path += [str(ROOT / "bindings/python"), str(INSTALLED)]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with random weights, and a tokenizer of single bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>"]
    made.train_from_iterator(
        [], trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=512,
        initializer_range=0.2,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed libgraphpatch."""
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--disable-pip-version-check",
        "--target",
    ]
    library = ROOT / "target/release/libgraphpatch.so"
    done = subprocess.run(
        [*command, folder, ROOT / "bindings/python"],
        env={**os.environ, "GRAPHPATCH_LIBRARY": str(library)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def values(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a server: steering vectors in files of three kinds."""
    import gguf

    folder = tmp_path_factory.mktemp("steering")
    torch.manual_seed(1)
    vector = torch.randn(HIDDEN)
    save_file({"v": vector, "wrong": torch.randn(3)}, folder / "steer.safetensors")
    torch.save(vector, folder / "steer.pt")
    writer = gguf.GGUFWriter(str(folder / "steer.gguf"), "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_tensor("direction.2", vector.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


@pytest.fixture(scope="session")
def environment(package: Path) -> Callable[..., dict[str, str]]:
    """The environment of a process that has vLLM, and, if a folder is given, our plugin switched on."""

    def made(folder: Path | None = None) -> dict[str, str]:
        own = {
            **ENVIRONMENT,
            "PYTHONPATH": os.pathsep.join([str(package), str(INSTALLED)]),
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_LOGGING_LEVEL": "WARNING",
            "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        return {**own, "GRAPHPATCH_VLLM": str(folder)} if folder else own

    return made


@pytest.fixture(scope="session")
def generate(model: Path, environment: Callable[..., dict[str, str]]) -> Callable[..., list[Any]]:
    """Has vLLM generate in one process, which costs half of the usual three: what generate.py says."""

    def run(batches: list[Any], folder: Path | None = None, **options: Any) -> list[Any]:
        usual = {"enforce_eager": True, "enable_prefix_caching": False, "distributed_executor_backend": "uni"}
        job = {"model": str(model), "batches": batches, "options": usual | options}
        done = subprocess.run(
            [sys.executable, HERE / "generate.py"],
            input=json.dumps(job),
            env={**environment(folder), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, done.stderr[-8000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run
