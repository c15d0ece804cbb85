"""Values from files, values that are kept, runs, and patch files, against PyTorch itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import models
from reference import Taps, steps, values
from reference import transformer as eager
from support import GRAPHPATCH, PROGRAMS, Result, Saved, graphpatch, run_process, same_bits

OUTPUT = "layers_0.mlp.output"


def reference(changes: dict[str, list[Any]]) -> tuple[Any, dict[str, Tensor]]:
    """The transformer by hand: its output and every value."""
    module, inputs = models.transformer()
    taps = Taps(changes)
    with torch.no_grad():
        return eager(taps, module, *inputs), {path: value.detach() for path, value in taps.seen.items()}


def one_step(x: Tensor, change: Callable[[Tensor], None]) -> Any:
    return steps(x, {"clone": change})


def patched(saved: Saved, patch: str) -> Result:
    return saved.run(patches=[patch], tree=False, extra=["--on-error", "raise"])


@pytest.fixture
def floats(exported: Callable[..., Saved]) -> tuple[Saved, Tensor]:
    """models.Steps on floats, and its input of shape (4, 5)."""
    x = values(torch.float32)
    return exported(f"steps-{torch.float32}", models.Steps(), (x,)), x


# --- values from files

# A slice as a patch and as Python writes it, and shapes that broadcast to it.
BROADCAST = [
    ("", ..., [(4, 5), (1, 5), (5,), (4, 1), (1,), ()]),
    ("[1]", 1, [(5,), (1,), ()]),
    ("[::2, 1:4]", (slice(None, None, 2), slice(1, 4)), [(2, 3), (2, 1), (3,)]),
    ("[..., 0]", (..., 0), [(4,), (1,)]),
]


@pytest.mark.parametrize("kind", ["add", "replace"])
@pytest.mark.parametrize("text, index, shapes", BROADCAST)
def test_an_npy_value_broadcasts(
    floats: tuple[Saved, Tensor], tmp_path: Path, kind: str, text: str, index: Any, shapes: Any
) -> None:
    saved, x = floats
    for shape in shapes:
        array = np.linspace(-3, 7, int(np.prod(shape)), dtype=np.float32).reshape(shape)
        np.save(tmp_path / "value.npy", array)
        value = torch.from_numpy(array)

        def change(at: Tensor) -> None:
            if kind == "replace":
                at[index] = value
            else:
                at[index] += value

        result = patched(saved, f"clone{text}={kind}:@{tmp_path / 'value.npy'}").ok()
        assert same_bits(result.output, one_step(x, change)), shape


NPY_DTYPES = ["<f4", ">f4", "<f8", "<f2", ">i2", "<i8", "|u1", "|i1", "|b1", "<i4", ">f8"]


@pytest.mark.parametrize("dtype", NPY_DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_dtypes_byte_and_memory_orders(
    floats: tuple[Saved, Tensor], tmp_path: Path, dtype: str, order: str
) -> None:
    saved, x = floats
    array = (np.arange(20).reshape(4, 5) * 3 % 7).astype(dtype, order=order)
    np.save(tmp_path / "value.npy", array)
    value = torch.from_numpy(np.ascontiguousarray(array).astype(np.dtype(dtype).newbyteorder("=")))

    def change(at: Tensor) -> None:
        at += value

    assert same_bits(patched(saved, f"clone=add:@{tmp_path / 'value.npy'}").ok().output, one_step(x, change))


SAFETENSORS_DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@pytest.mark.parametrize("dtype", SAFETENSORS_DTYPES, ids=lambda d: str(d).split(".")[1])
@pytest.mark.parametrize("kind", ["add", "replace"])
def test_a_safetensors_value(floats: tuple[Saved, Tensor], tmp_path: Path, dtype: torch.dtype, kind: str) -> None:
    saved, x = floats
    value = (torch.arange(5) % 3).to(dtype)
    save_file({"other": torch.ones(7), "a.b|c#0": value, "a": torch.zeros(2)}, tmp_path / "values.safetensors")

    def change(at: Tensor) -> None:
        if kind == "replace":
            at[1:3] = value
        else:
            at[1:3] += value

    result = patched(saved, f"clone[1:3]={kind}:@{tmp_path / 'values.safetensors'}#a.b|c#0").ok()
    assert same_bits(result.output, one_step(x, change))


# The value's dtype, the patch's, and whether PyTorch takes `at += value`.
@pytest.mark.parametrize(
    "dtype, value",
    [
        (torch.int64, torch.float32),
        (torch.uint8, torch.float64),
        (torch.bool, torch.int64),
        (torch.float32, torch.complex64),
        (torch.int64, torch.bool),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["add", "replace"])
def test_dtypes_are_refused_as_pytorch_does(
    exported: Callable[..., Saved], tmp_path: Path, dtype: torch.dtype, value: torch.dtype, kind: str
) -> None:
    x = values(dtype)
    saved = exported(f"steps-{dtype}", models.Steps(), (x,))
    tensor = torch.ones(5).to(value)
    save_file({"k": tensor}, tmp_path / "v.safetensors")

    def change(at: Tensor) -> None:
        if kind == "replace":
            at[0] = tensor
        else:
            at[0] += tensor

    try:
        expected = one_step(x, change)
    except RuntimeError:
        expected = None
    result = patched(saved, f"clone[0]={kind}:@{tmp_path / 'v.safetensors'}#k")
    if expected is None:
        assert result.code == 1 and "clone" in result.stderr and not result.outputs
    else:
        assert same_bits(result.ok().output, expected)


@pytest.mark.parametrize("shape", [(3,), (4, 4), (2, 4, 5), (0,)])
def test_shapes_that_do_not_broadcast_are_refused(
    floats: tuple[Saved, Tensor], tmp_path: Path, shape: tuple[int, ...]
) -> None:
    np.save(tmp_path / "v.npy", np.zeros(shape, np.float32))
    for kind in ("add", "replace"):
        result = patched(floats[0], f"clone={kind}:@{tmp_path / 'v.npy'}")
        assert result.code == 1 and "clone" in result.stderr


def test_a_file_is_found_from_another_directory(floats: tuple[Saved, Tensor], tmp_path: Path) -> None:
    """A relative file name is resolved in the command's working directory, even if the program changes its own."""
    saved, x = floats
    np.save(tmp_path / "v#1.npy", np.float32(2))
    program = f"cd / && exec '{PROGRAMS / 'runner'}' '{saved.model}' '{saved.inputs}' '{tmp_path / 'out.pt'}'"
    run_process(
        [GRAPHPATCH, "run", "--patch", r"clone=replace:@v\#1.npy", "--", "/bin/sh", "-c", program], cwd=tmp_path
    ).ok()
    threads, _, _ = torch.load(tmp_path / "out.pt", weights_only=False)
    assert same_bits(threads[0][0], one_step(x, lambda at: at.fill_(2)))


def test_bad_files_stop_before_the_program(floats: tuple[Saved, Tensor], tmp_path: Path) -> None:
    saved, _ = floats
    np.save(tmp_path / "good.npy", np.zeros(5))
    (tmp_path / "half.npy").write_bytes((tmp_path / "good.npy").read_bytes()[:-1])
    np.save(tmp_path / "text.npy", np.array(["a"]))
    np.save(tmp_path / "objects.npy", np.array([None]), allow_pickle=True)
    np.save(tmp_path / "records.npy", np.zeros(2, [("a", "<f4")]))
    save_file({"clean": torch.zeros(1), "corrupt": torch.zeros(1)}, tmp_path / "two.safetensors")
    torch.save(torch.zeros(1), tmp_path / "torch.safetensors")
    for value, hint in [
        ("missing.npy", "there is no such file"),
        ("half.npy", "39 bytes"),
        ("text.npy", "<U1"),
        ("objects.npy", "Python objects"),
        ("records.npy", "records"),
        ("two.safetensors#claen", "there are: clean, corrupt"),
        ("two.safetensors", "#key"),
        ("torch.safetensors#k", "not a safetensors file"),
        ("good.npy#k", "no keys"),
        ("", ".npy, .safetensors, .gguf, .pt or .pth"),
    ]:
        result = patched(saved, f"clone=add:@{tmp_path / value}")
        assert result.code == 2 and not result.outputs and hint in result.stderr, f"{value}: {result.stderr}"


# --- values that are kept


def kept(
    saved: Saved, folder: Path, extra: list[Any], *options: Any, code: int = 0
) -> tuple[dict[str, Tensor], Result]:
    file = folder / "kept.safetensors"
    result = saved.run(*options, tree=False, extra=[*extra, "--save", file])
    assert result.code == code, result.stderr
    return load_file(file), result


@pytest.mark.parametrize("kind", ["scripted", "traced"])
def test_every_node_can_be_probed(transformer: Callable[[str], Saved], tmp_path: Path, kind: str) -> None:
    saved = transformer(kind)
    output, seen = reference({})
    # A traced module has other names for some values, so only paths that exist in it are compared.
    graph = tmp_path / "g.json"
    saved.run(graph=graph, tree=False).ok()
    known = [path for path in seen if graphpatch("check", graph, "--probe", path).code == 0]
    assert len(known) == len(seen) or kind == "traced" and len(known) > len(seen) / 2
    values, result = kept(saved, tmp_path, [part for path in known for part in ("--probe", path)])
    assert list(values) and set(values) == set(known)
    wrong = [path for path in known if not same_bits(values[path], seen[path].contiguous())]
    assert not wrong, wrong
    assert same_bits(result.output, output)


def test_a_probe_sees_what_comes_before_it(transformer: Callable[[str], Saved], tmp_path: Path) -> None:
    _, seen = reference({})
    zeroed, after = reference({OUTPUT: [lambda at: at.zero_()]})
    values, result = kept(
        transformer("scripted"),
        tmp_path,
        ["--probe", OUTPUT, "--patch", f"{OUTPUT}=zero", "--probe", OUTPUT, "--probe", "layers_0.add_1"],
    )
    assert same_bits(values[OUTPUT], seen[OUTPUT]) and same_bits(values[f"{OUTPUT}~2"], torch.zeros_like(seen[OUTPUT]))
    assert same_bits(values["layers_0.add_1"], after["layers_0.add_1"]) and same_bits(result.output, zeroed)


def test_a_record_keeps_every_value_in_order(exported: Callable[..., Saved], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, x = models.Loop(), torch.randn(2, 4)
    saved = exported("loop-kept", module, (x, 5))
    values, _ = kept(
        saved, tmp_path, ["--record", "linear_0.output", "--record", "linear_2.output", "--probe", "tanh"], "--runs", 3
    )
    with torch.no_grad():
        first = module.linear(x)
        third = module.linear(torch.tanh(module.linear(torch.tanh(first))))
    assert set(values) == {
        "tanh",
        *(f"{path}#{i}" for path in ("linear_0.output", "linear_2.output") for i in range(3)),
    }
    assert all(same_bits(values[f"linear_0.output#{i}"], first) for i in range(3))
    assert all(same_bits(values[f"linear_2.output#{i}"], third) for i in range(3))
    assert same_bits(values["tanh"], torch.tanh(first))


def test_looking_leaves_the_program_alone(transformer: Callable[[str], Saved], tmp_path: Path) -> None:
    saved = transformer("scripted")
    bare = saved.bare("--runs", 3, "--threads", 2).ok()
    values, result = kept(saved, tmp_path, ["--record", OUTPUT, "--summary"], "--runs", 3, "--threads", 2)
    assert (
        same_bits(result.outputs, bare.outputs)
        and same_bits(result.weights, bare.weights)
        and result.stdout == bare.stdout
    )
    assert len(values) == 6 and "kept" in result.stderr
    assert all(same_bits(value, values[f"{OUTPUT}#0"]) for value in values.values())


def test_values_of_every_dtype_come_back(exported: Callable[..., Saved], tmp_path: Path) -> None:
    for dtype in SAFETENSORS_DTYPES + [torch.complex64]:
        x = values(dtype)
        saved = exported(f"steps-{dtype}", models.Steps(), (x,))
        found, _ = kept(saved, tmp_path, ["--probe", "transpose", "--probe", "x"])
        assert same_bits(found["transpose"], x.T.contiguous()) and same_bits(found["x"], x), dtype


def test_what_safetensors_cannot_hold_is_said(exported: Callable[..., Saved], tmp_path: Path) -> None:
    saved = exported("steps-complex128", models.Steps(), (torch.ones(4, 5, dtype=torch.complex128),))
    file = tmp_path / "kept.safetensors"
    result = saved.run(tree=False, extra=["--probe", "clone", "--save", file])
    assert result.code == 1 and "clone: safetensors cannot hold complex128" in result.stderr
    assert not file.exists() and f"{file}: no value was kept: the file is not written" in result.stderr


def test_a_probe_that_never_matched(transformer: Callable[[str], Saved], tmp_path: Path) -> None:
    found, result = kept(transformer("scripted"), tmp_path, ["--probe", "layers_7.output", "--probe", OUTPUT], code=3)
    assert set(found) == {OUTPUT} and "layers_7.output=probe never matched" in result.stderr


def test_processes_and_ranks(transformer: Callable[[str], Saved], tmp_path: Path) -> None:
    saved = transformer("scripted")
    one = f"'{PROGRAMS / 'runner'}' '{saved.model}' '{saved.inputs}' '{tmp_path}/out.pt'"
    both = ["/bin/sh", "-c", f"{one} && {one}"]
    run_process([GRAPHPATCH, "run", "--probe", OUTPUT, "--save", tmp_path / "k.safetensors", "--", *both]).ok()
    found = load_file(tmp_path / "k.safetensors")
    assert len(found) == 2 and OUTPUT in found and all(key.split("@")[0] == OUTPUT for key in found)
    ranks = ["/bin/sh", "-c", f"RANK=0 {one} && RANK=1 {one}"]
    run_process([GRAPHPATCH, "run", "--probe", OUTPUT, "--save", tmp_path / "r.safetensors", "--", *ranks]).ok()
    assert all(set(load_file(tmp_path / f"r.rank{rank}.safetensors")) == {OUTPUT} for rank in (0, 1))
    assert not (tmp_path / "r.safetensors").exists()


@pytest.mark.parametrize("way", ["_exit", "quick_exit", "abort", "sigterm"])
def test_a_sudden_end_leaves_the_values(tuple_output: Callable[[str], Saved], tmp_path: Path, way: str) -> None:
    saved = tuple_output("scripted")
    file = tmp_path / "k.safetensors"
    graphpatch("run", "--probe", "linear.output", "--save", file, "--", PROGRAMS / "endings", *saved.args(), way)
    assert load_file(file)["linear.output"].shape == (3, 3)


# --- runs and patch files


@pytest.mark.parametrize("runs, hit", [("0", {0}), ("2..", {2, 3, 4}), ("1..3", {1, 2}), ("0..", {0, 1, 2, 3, 4})])
def test_runs(floats: tuple[Saved, Tensor], tmp_path: Path, runs: str, hit: Any) -> None:
    saved, x = floats
    (tmp_path / "p.toml").write_text(
        f"[[patch]]\npath = 'clone'\nkind = 'zero'\nruns = '{runs}'\n"
        f"[[patch]]\npath = 'output|sub_0'\nkind = 'record'\nruns = '{runs}'\n"
    )
    found, result = kept(saved, tmp_path, ["--patches", tmp_path / "p.toml"], "--runs", 5)
    zero, plain = one_step(x, lambda at: at.zero_()), steps(x, {})
    assert all(same_bits(run, zero if i in hit else plain) for i, run in enumerate(result.outputs[0]))
    assert len(found) == len(hit) and all(not value.any() for value in found.values())


def test_a_patch_file_with_everything(transformer: Callable[[str], Saved], tmp_path: Path) -> None:
    folder = tmp_path / "patches"
    folder.mkdir()
    delta, clean = torch.linspace(-1, 1, 8), torch.full((2, 5, 8), 0.25)
    np.save(folder / "delta.npy", delta.numpy())
    save_file({"clean": clean}, folder / "values.safetensors")
    (folder / "p.toml").write_text(f"""
[[patch]]
path = "{OUTPUT}"
kind = "probe"
[[patch]]
path = "{OUTPUT}"
slice = "[..., 0]"
kind = "add"
value = 0.5
[[patch]]
path = "{OUTPUT}"
kind = "add"
value = {{ file = "delta.npy" }}
runs = "0.."
[[patch]]
path = "layers_1.attn.chunk|sub_1"
slice = "[0]"
kind = "zero"
runs = 0
[[patch]]
path = "layers_1.mlp.output"
kind = "replace"
value = {{ file = "values.safetensors", key = "clean" }}
runs = "0..1"
[[patch]]
path = "head.output"
kind = "record"
limit = 1
""")

    def first(at: Tensor) -> None:
        at[..., 0] += 0.5

    def second(at: Tensor) -> None:
        at += delta

    def cleared(at: Tensor) -> None:
        at[0] = 0

    always = {OUTPUT: [first, second]}
    run0, seen0 = reference(
        {**always, "layers_1.attn.chunk|sub_1": [cleared], "layers_1.mlp.output": [lambda at: at.copy_(clean)]}
    )
    run1, _ = reference(always)
    plain = reference({})[1]
    found, result = kept(transformer("scripted"), tmp_path, ["--patches", folder / "p.toml", "--summary"], "--runs", 2)
    assert same_bits(result.outputs[0], [run0, run1])
    assert set(found) == {OUTPUT, "head.output#0"}
    assert same_bits(found[OUTPUT], plain[OUTPUT]) and same_bits(found["head.output#0"], seen0["head.output"])
    assert "1 over the limit" in result.stderr and "(runs 0..1)" not in result.stderr and "(runs 0)" in result.stderr


def test_patch_files_are_checked(transformer: Callable[[str], Saved], tmp_path: Path) -> None:
    saved, graph = transformer("scripted"), tmp_path / "g.json"
    saved.run(graph=graph, tree=False).ok()
    file = tmp_path / "p.toml"
    file.write_text("[[patch]]\npath = 'layers_0.mlp.outptu'\nkind = 'probe'\n")
    for options in (["--patches", file], ["--probe", "layers_0.mlp.outptu"], ["--record", "layers_0.mlp.outptu"]):
        checked = graphpatch("check", graph, *options)
        assert checked.code == 2 and "layers_0.mlp.output" in checked.stderr
        result = saved.run(tree=False, extra=[*options, "--save", tmp_path / "k.safetensors", "--against", graph])
        assert result.code == 2 and not result.outputs and "layers_0.mlp.output" in result.stderr
    file.write_text("[[patch]]\npath = 'layers_0.mlp.output'\nkind = 'add'\nvalue = [1]\n")
    checked = graphpatch("check", graph, "--patches", file)
    assert checked.code == 2 and "p.toml: line 4, column 9: expected a number" in checked.stderr
    graphpatch("check", graph, "--probe", "layers_0.mlp.output", "--record", "output|sub_1").ok()
