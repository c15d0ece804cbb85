"""Values of patches in files of other programs: torch.save, and the package gguf."""

import collections
import sys
import textwrap
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from support import GRAPHPATCH, run_process

SCRIPT = """
    import sys, torch
    class Net(torch.nn.Module):
        def __init__(self, count):
            super().__init__()
            self.parts = torch.nn.ModuleList(torch.nn.Identity() for _ in range(count))
        def forward(self, x):
            return [part(x) + 0 for part in self.parts]
    net = Net(int(sys.argv[2]))
    torch.save(net(torch.zeros(2, 3, dtype=torch.float64)), sys.argv[1])
"""


def replaced(folder: Path, values: list[str]) -> list[torch.Tensor]:
    """What a model's values become, each replaced by one of these."""
    (folder / "script.py").write_text(textwrap.dedent(SCRIPT))
    patches = [f"--patch=parts_{i}.output=replace:{value}" for i, value in enumerate(values)]
    command = [GRAPHPATCH, "run", *patches, "--on-error", "raise", sys.executable, folder / "script.py"]
    run_process([*command, folder / "out.pt", len(values)]).ok()
    return torch.load(folder / "out.pt")


def refused(value: str) -> str:
    done = run_process([GRAPHPATCH, "run", f"--patch=x=replace:{value}", "true"])
    assert done.code == 2, done.stderr
    return done.stderr


def test_tensors_that_torch_saved(tmp_path: Path) -> None:
    def views(dtype: torch.dtype) -> torch.Tensor:
        return torch.arange(12).to(dtype).reshape(4, 3).t()[:2, 1:4]  # an offset, and strides of its own

    plain = {
        "f32": torch.randn(2, 3),
        "parameter": torch.nn.Parameter(torch.randn(2, 3)),
        "half": torch.randn(2, 3).half(),
        "bfloat16": torch.randn(2, 3).bfloat16(),
        "double": views(torch.float64),
        "long": views(torch.int64),
        "bool": torch.tensor([[True, False, True], [False, False, True]]),
        "uint16": views(torch.uint16),
        "float8": torch.randn(2, 3).to(torch.float8_e4m3fn),
        "expanded": torch.tensor([1.5]).expand(2, 3),
        "scalar": torch.tensor(7),
        "w.0.bias": torch.randn(3),
    }
    torch.save(plain, tmp_path / "all.pt")
    values = [f"@{tmp_path}/all.pt#{key}" for key in plain]
    torch.save(plain["double"], tmp_path / "one.pth")
    torch.save(collections.OrderedDict(plain), tmp_path / "ordered.pt", pickle_protocol=5)
    torch.save(torch.nn.Linear(3, 2).state_dict() | {"step": 3, "args": {"lr": [0.1, None]}}, tmp_path / "state.pt")
    values += [f"@{tmp_path}/one.pth", f"@{tmp_path}/ordered.pt#half", f"@{tmp_path}/state.pt#weight"]
    state = torch.load(tmp_path / "state.pt")
    expected = [*plain.values(), plain["double"], plain["half"], state["weight"]]
    found = replaced(tmp_path, values)
    for value, got, want in zip(values, found, expected, strict=True):
        assert torch.equal(got, want.detach().double().expand(2, 3)), value


class Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(Evil.target), "w")

    target = Path()


def test_nothing_of_a_saved_file_is_run(tmp_path: Path) -> None:
    Evil.target = tmp_path / "ran"
    torch.save(Evil(), tmp_path / "evil.pt")
    torch.save({"w": torch.ones(2, 3), "evil": Evil()}, tmp_path / "mixed.pt")
    assert "is no plain tensor" in refused(f"@{tmp_path}/evil.pt")
    assert "is no plain tensor" in refused(f"@{tmp_path}/mixed.pt#evil")
    assert torch.equal(replaced(tmp_path, [f"@{tmp_path}/mixed.pt#w"])[0], torch.ones(2, 3).double())
    assert not Evil.target.exists()


def test_what_is_no_plain_tensor_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    torch.save({"a": {"b": torch.ones(2)}, "c": torch.ones(2), "n": 3}, tmp_path / "nested.pt")
    torch.save(torch.ones(2), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save(torch.ones(2).to_sparse(), tmp_path / "sparse.pt")
    torch.save(torch.ones(2, dtype=torch.complex64).conj(), tmp_path / "conj.pt")
    torch.save(torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), tmp_path / "quantized.pt")
    torch.save(types.SimpleNamespace(x=1), tmp_path / "object.pt")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "program.pt")
    for name, why in {
        "list.pt": "a list is no tensor",
        "nested.pt": "there are: c",
        "nested.pt#a": "a dict is no tensor",
        "nested.pt#n": "a number is no tensor",
        "old.pt": "PyTorch 1.6 or later",
        "sparse.pt": "_rebuild_sparse_tensor",
        "conj.pt": "resolve_conj()",
        "quantized.pt": "_rebuild_qtensor",
        "object.pt": "SimpleNamespace",
        "program.pt": "no plain tensor",
    }.items():
        assert why in refused(f"@{tmp_path}/{name}"), name


def test_tensors_that_the_package_gguf_wrote(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    tensors = {
        "direction.1": random.normal(size=(2, 3)).astype(np.float32),
        "half": random.normal(size=(2, 3)).astype(np.float16),
        "double": random.normal(size=3),
        "int8": np.array([[1, -2, 3]], dtype=np.int8),
    }
    writer = gguf.GGUFWriter(str(tmp_path / "v.gguf"), "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_array("layers", [1, 2, 3])
    writer.add_custom_alignment(64)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    packed = gguf.quants.quantize(np.zeros((2, 32), np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("packed", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = replaced(tmp_path, [f"@{tmp_path}/v.gguf#{name}" for name in tensors])
    for (name, tensor), got in zip(tensors.items(), found, strict=True):
        assert torch.equal(got, torch.from_numpy(tensor).double().expand(2, 3)), name
    assert "quantized" in refused(f"@{tmp_path}/v.gguf#packed")
    assert "direction.1" in refused(f"@{tmp_path}/v.gguf#direction")


@pytest.mark.parametrize("value", ['"@v.pt#w"', '{ file = "v.pt", key = "w" }'])
def test_a_file_of_patches_names_them_too(tmp_path: Path, value: str) -> None:
    torch.save({"w": torch.ones(2, 3)}, tmp_path / "v.pt")
    (tmp_path / "p.toml").write_text(f'[[patch]]\npath = "x"\nkind = "add"\nvalue = {value}\n')
    read = run_process([GRAPHPATCH, "run", "--patches", tmp_path / "p.toml", "true"])
    assert read.code == 3 and "v.pt#w never matched" in read.stderr, read.stderr
    (tmp_path / "v.pt").write_bytes(b"PK")
    damaged = run_process([GRAPHPATCH, "run", "--patches", tmp_path / "p.toml", "true"])
    assert damaged.code == 2 and "v.pt" in damaged.stderr, damaged.stderr
