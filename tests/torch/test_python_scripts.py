"""`graphpatch run -- python script.py`: scripts that know nothing of the library, with and without it."""

import functools
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models import TUPLE_OUTPUT_TREE
from support import ENVIRONMENT, GRAPHPATCH, ROOT, TIMEOUT, Result, nodes, tree_in, trees_in

SCRIPTS = ROOT / "tests/programs/python"


OWN = {"PYTHONPATH": str(ROOT / "bindings/python"), "GRAPHPATCH_LIBRARY": str(GRAPHPATCH.with_name("libgraphpatch.so"))}


def python(
    *args: Any,
    under: Sequence[Any] | None = None,
    env: dict[str, str] | None = None,
    interpreter: Any = sys.executable,
    stdin: str = "",
) -> Result:
    """A Python process in the scripts' folder, alone or under `graphpatch run` with the options ``under``."""
    command = [*([] if under is None else [GRAPHPATCH, "run", *under, "--"]), interpreter, *args]
    environment = {**ENVIRONMENT, **(env or {})}
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        cwd=SCRIPTS,
        env=environment,
        input=stdin,
    )
    return Result(done.stdout, done.stderr, done.returncode)


@functools.cache
def bare(*args: str) -> Result:
    return python(*args)


def seen(*args: str, options: Sequence[Any] = ("--tree",)) -> Result:
    """Runs a script under `graphpatch run`. Its own output and exit code must be the same as without."""
    result = python(*args, under=options)
    assert (result.stdout, result.code) == (bare(*args).stdout, bare(*args).code), result.stderr
    return result


def headers(text: str) -> list[str]:
    return [line[2:] for line in text.splitlines() if line.startswith("# ")]


PAIR_TREE = """\
<root>: Graph(5)
├─x: Tensor(2, 4)
├─first: Graph(5)
│ ├─input: Tensor(2, 4)
│ ├─weight: Tensor(4, 4)
│ ├─bias: Tensor(4)
│ ├─linear: Tensor(2, 4)
│ └─output: Tensor(2, 4)
├─relu: Tensor(2, 4)
├─second: Graph(5)
│ ├─input: Tensor(2, 4)
│ ├─weight: Tensor(4, 4)
│ ├─bias: Tensor(4)
│ ├─linear: Tensor(2, 4)
│ └─output: Tensor(2, 4)
└─output: Tensor(2, 4)
"""

# --- what is seen and patched


def test_the_tree_is_that_of_patchable_graph_and_of_torchscript() -> None:
    own = python("tuple_output.py", "graph", env=OWN)
    result = seen("tuple_output.py")
    assert tree_in(result.stderr) == TUPLE_OUTPUT_TREE == own.ok().stdout.rstrip("\n") + "\n"


def test_a_patch_does_what_a_hook_does() -> None:
    patched = python("tuple_output.py", under=["--patch", "linear_1.output=zero", "--summary"]).ok()
    assert patched.stdout == bare("tuple_output.py", "hook").stdout != bare("tuple_output.py").stdout
    assert "1 run in 1 process" in patched.stderr


def test_files_options_and_exit_codes(tmp_path: Path) -> None:
    graph, kept, patches = tmp_path / "g.json", tmp_path / "kept.safetensors", tmp_path / "patches.toml"
    python("tuple_output.py", under=["--graph", graph]).ok()
    patches.write_text('[[patch]]\npath = "add"\nslice = "[0]"\nkind = "add"\nvalue = 1.0\n')
    result = python(
        "tuple_output.py",
        under=[
            "--against",
            graph,
            "--patches",
            patches,
            "--probe",
            "add",
            "--record",
            "linear_1.linear",
            "--save",
            kept,
            "--summary",
        ],
    ).ok()
    values = load_file(kept)
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(2, 3), torch.randn(3, 2)
    x = x + 1
    x[0] += 1
    assert torch.equal(values["add"], x) and torch.equal(values["linear_1.linear#0"], linear(x).detach())
    assert "add[0]=add:1" in result.stderr

    unknown = python("tuple_output.py", under=["--against", graph, "--patch", "linear_2.output=zero"])
    assert unknown.code == 2 and "linear_1" in unknown.stderr and not unknown.stdout
    never = python("tuple_output.py", under=["--patch", "linear_2.output=zero"])
    assert never.code == 3 and "linear_1" in never.stderr and never.stdout == bare("tuple_output.py").stdout
    misfit = python("tuple_output.py", under=["--patch", "add[7]=zero", "--on-error", "raise"])
    assert misfit.code == 1 and "Traceback" in misfit.stderr and "add" in misfit.stderr.splitlines()[-2]
    skipped = python("tuple_output.py", under=["--patch", "add[7]=zero"])
    assert skipped.code == 3 and skipped.stdout == bare("tuple_output.py").stdout


def test_source_lines_are_the_scripts(tmp_path: Path) -> None:
    graph = tmp_path / "g.json"
    python("tuple_output.py", under=["--graph", graph]).ok()
    text = graph.read_text()
    assert (
        "model.py" in text and "self.linear(x + 1)" in text and "_module_call.py" not in text and "_run.py" not in text
    )


def test_generate() -> None:
    result = seen("generate.py")
    found = dict(nodes(tree_in(result.stderr)))
    assert found["transformer.h_1.attn.c_attn.output"] == "Tensor(1, 1..3, 48)"
    patched = python("generate.py", under=["--patch", "lm_head.output[..., 7]=replace:100"]).ok()
    assert patched.stdout == "[[1, 2, 3, 7, 7, 7, 7, 7, 7]]\n"


def test_roots_are_named_after_their_class() -> None:
    result = seen("models.py", "several")
    assert headers(result.stderr) == ["Pair.forward", "Pair.forward#2", "ReLU.forward"]
    assert trees_in(result.stderr)[:2] == [PAIR_TREE, PAIR_TREE]
    # After a model was freed, a new one gets its name without another number.
    assert tree_in(seen("models.py", "after").stderr) == PAIR_TREE


def test_a_replaced_layer_is_seen() -> None:
    found = dict(nodes(tree_in(seen("models.py", "adapted").stderr)))
    assert found["second.sub_0.weight"] == "Tensor(3, 4)" and found["second.sub_0.output"] == "Tensor(2, 3)"


def test_a_scripted_module_is_seen_from_its_first_call() -> None:
    result = seen("models.py", "scripted")
    assert tree_in(result.stderr) == PAIR_TREE and "not seen" not in result.stderr
    zero = python("models.py", "scripted", under=["--patch", "relu=zero"]).ok()
    assert zero.stdout != bare("models.py", "scripted").stdout


def test_training_with_checkpointing() -> None:
    result = seen("models.py", "checkpoint")
    found = dict(nodes(tree_in(result.stderr)))
    # The part that checkpointing computes again is not a root of its own.
    assert found["pair.relu"] == "Tensor(2, 4)" and "Pair.forward" not in result.stderr


@pytest.mark.parametrize("order", ["first", "second"])
def test_a_script_that_uses_the_package_itself(order: str) -> None:
    without = python("own_package.py", order, env=OWN).ok()
    result = python("own_package.py", order, env=OWN, under=["--tree"]).ok()
    assert result.stdout == without.stdout
    found = dict(nodes(next(tree for tree in trees_in(result.stderr) if "inner: " in tree)))
    assert found["neg"] == found["inner.output"] == "Tensor(2, 4)"


@pytest.mark.parametrize("how", ["own-call", "own-hooks"])
def test_scripts_that_watch_modules_themselves(how: str) -> None:
    assert tree_in(seen("models.py", how).stderr) == PAIR_TREE


# --- torch's own ways of looking at a model


@pytest.mark.parametrize("how", ["trace", "script", "fx", "export", "fake"])
def test_tracing_is_left_alone(how: str) -> None:
    result = seen("traced.py", how)
    if how in ("script", "export", "fake"):
        assert not trees_in(result.stderr)
    else:
        assert all(tree == PAIR_TREE for tree in trees_in(result.stderr))


@pytest.mark.parametrize("how", ["compile", "compile-method", "compile-function", "inductor"])
def test_compiled_models_show_their_inside(how: str) -> None:
    """The inside is seen from the first call on. The script prints its counts of graphs and graph breaks."""
    assert tree_in(seen("traced.py", how).stderr) == PAIR_TREE


def test_looking_leaves_compiled_code_its_bits() -> None:
    """Observing must not change results: inductor's code rounds in its own way, and uses random numbers and buffers."""
    trees = trees_in(seen("compiled.py").stderr)
    assert len(trees) == 1 and "layers" in trees[0] and "softmax" in trees[0]


def test_compiled_models_take_patches(tmp_path: Path) -> None:
    patched, kept = [], tmp_path / "kept.safetensors"
    for how in ("plain", "compile"):
        options = ["--patch", "relu[:, 0]=add:1", "--probe", "second.output", "--save", kept]
        python("traced.py", how, under=options).ok()
        patched.append(load_file(kept))
    assert patched[0].keys() == patched[1].keys() and len(patched[0]) == 1
    assert all(torch.equal(value, patched[1][name]) for name, value in patched[0].items())


@pytest.mark.parametrize("how", ["vmap", "functional"])
def test_functional_calls(how: str) -> None:
    assert tree_in(seen("traced.py", how).stderr) == PAIR_TREE


# --- how programs start


@pytest.mark.parametrize("args", [[], ["probe"], ["lazy"], ["reload"]], ids=lambda args: "".join(args) or "plain")
def test_imports_of_torch(args: list[str]) -> None:
    """The import hook leaves nothing behind: what the script prints of sys is the same without us."""
    assert tree_in(seen("imports.py", *args).stderr) == PAIR_TREE


SNIPPET = "import torch, model; print(model.bits(model.pair()(torch.ones(2, 4))))"


def test_command_lines() -> None:
    expected = bare("-c", SNIPPET).stdout
    for args, more in [
        (["-m", "pkg"], {}),
        (["-c", SNIPPET], {}),
        (["-"], {"stdin": SNIPPET}),
        (["-s", "-m", "pkg"], {}),
    ]:
        result = python(*args, under=["--tree"], **more).ok()
        assert result.stdout == expected and tree_in(result.stderr) == PAIR_TREE, args
    shell = subprocess.run(
        [GRAPHPATCH, "run", "--tree", "--", "bash", "-c", f"{sys.executable} -m pkg && echo done"],
        cwd=SCRIPTS,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert shell.stdout == f"{expected}done\n" and tree_in(shell.stderr) == PAIR_TREE


def test_an_interactive_start(tmp_path: Path) -> None:
    start = tmp_path / "start.py"
    start.write_text("import torch, model\n")
    for under in (None, ["--tree"]):
        result = python(
            "-i",
            "-q",
            under=under,
            env={"PYTHONSTARTUP": str(start)},
            stdin="print(model.bits(model.pair()(torch.ones(2, 4))))\n",
        )
        assert bare("-m", "pkg").stdout in result.stdout
    assert tree_in(result.stderr) == PAIR_TREE


def test_a_virtual_environment(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", tmp_path / "env"], check=True)
    packages = next((tmp_path / "env/lib").iterdir()) / "site-packages"
    (packages / "other.pth").write_text(str(Path(torch.__file__).parents[1]) + "\n")
    result = python("-m", "pkg", under=["--tree"], interpreter=tmp_path / "env/bin/python").ok()
    assert tree_in(result.stderr) == PAIR_TREE


def test_an_isolated_start_is_said() -> None:
    code = f"import sys; sys.path.insert(0, '.'); {SNIPPET}"
    result = python("-I", "-c", code, under=["--tree"]).ok()
    assert result.stdout == bare("-m", "pkg").stdout and not trees_in(result.stderr)
    assert "modules called by Python were not seen" in result.stderr and "-I" in result.stderr


# --- programs without torch, and other people's start files

LOOK = (
    "import sys, os; print(sorted(sys.modules), sys.path, sorted(sys.path_importer_cache), sys.flags, sys.warnoptions,"
    " [type(f) for f in sys.meta_path if 'libgraphpatch' not in repr(f) and type(f).__name__ != '_Finder'])"
)


def test_a_program_without_torch_is_untouched() -> None:
    result = python("-c", LOOK, under=["--tree"]).ok()
    assert result.stdout == python("-c", LOOK).stdout
    assert result.stderr.count("\n") == 1 and "no libtorch model ran" in result.stderr


@pytest.mark.parametrize("with_torch", [False, True])
def test_other_start_files(tmp_path: Path, with_torch: bool) -> None:
    """The program's own sitecustomize, on PYTHONPATH, and the user's usercustomize run, once and in their order."""
    theirs, base = tmp_path / "theirs", tmp_path / "base"
    theirs.mkdir()
    user = base / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    user.mkdir(parents=True)
    (theirs / "sitecustomize.py").write_text("import sys\nprint('site', __name__, __file__)\nVALUE = 5\n")
    (user / "usercustomize.py").write_text("import sitecustomize\nprint('user', sitecustomize.VALUE)\n")
    env = {"PYTHONPATH": f"{theirs}", "PYTHONUSERBASE": str(base)}
    # In a virtual environment Python does not look at the user's site folder.
    code = "import sitecustomize; print(sitecustomize.VALUE, sitecustomize.__spec__.origin)\n" + (
        SNIPPET if with_torch else ""
    )
    interpreter = sys.executable if with_torch else getattr(sys, "_base_executable", sys.executable)
    without = python("-c", code, env=env, interpreter=interpreter).ok()
    result = python("-c", code, env=env, interpreter=interpreter, under=["--tree"]).ok()
    assert result.stdout == without.stdout and without.stdout.count("site sitecustomize") == 1
    assert with_torch or "user 5" in without.stdout
    assert not with_torch or tree_in(result.stderr) == PAIR_TREE


@pytest.mark.parametrize(
    "text", ["raise RuntimeError('theirs')\n", "import absent\n", "import torch\n", "syntax error\n"]
)
def test_odd_start_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(text)
    env = {"PYTHONPATH": str(tmp_path)}
    without = python("-m", "pkg", env=env)
    result = python("-m", "pkg", env=env, under=["--tree"])
    assert (result.stdout, result.code) == (without.stdout, without.code)
    assert set(without.stderr.splitlines()) <= set(result.stderr.splitlines())
    assert tree_in(result.stderr) == PAIR_TREE


def test_a_read_only_cache(tmp_path: Path) -> None:
    """A cache that cannot be written stops no program."""
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    result = python("-c", "print(1)", under=["--tree"], env={"GRAPHPATCH_CACHE": str(nowhere / "cache")}).ok()
    assert result.stdout == "1\n" and "not seen" not in result.stderr


# --- how programs end, and their children


@pytest.mark.parametrize("way", ["none", "raise", "exit", "exit-text", "_exit", "sigterm", "exec-fails"])
def test_ends(way: str) -> None:
    args = "ways.py", way
    result = python(*args, under=["--tree"])
    code = bare(*args).code
    assert result.stdout == bare(*args).stdout and result.code == (code if code >= 0 else 128 - code)
    assert PAIR_TREE in trees_in(result.stderr)
    if way == "raise":
        # The traceback is the same except for torch's frame `_wrapped_call_impl`, which the extension replaces.
        shown = iter(result.stderr.splitlines())
        lines = re.sub(r"  File .*, in _wrapped_call_impl\n.*\n(?: *\^+\n)?", "", bare(*args).stderr).splitlines()
        assert len(lines) > 5 and all(line in shown for line in lines)
    if way == "exit-text":
        assert result.stderr.startswith("with a text\n")


@pytest.mark.parametrize(
    "way, runs, processes",
    [
        ("exec", 2, 2),
        ("child", 2, 2),
        ("threads", 5, 1),
        ("spawn", 5, None),
        ("fork", 5, None),
        ("loader-fork", 9, 3),
        ("loader-spawn", 9, 3),
    ],
)
def test_children(way: str, runs: int, processes: int | None) -> None:
    result = seen("ways.py", way, options=["--tree", "--summary"])
    assert all(tree == PAIR_TREE for tree in trees_in(result.stderr)) and trees_in(result.stderr)
    said = f"{runs} runs in " + ("" if processes is None else f"{processes} process{'es' if processes > 1 else ''}")
    assert said in result.stderr, result.stderr


def test_ranks(tmp_path: Path) -> None:
    graph = tmp_path / "g.json"
    # With --standalone, torchrun picks a free port instead of a fixed one.
    args = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "ranks.py"
    seen(*args, options=["--graph", graph])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["g.rank0.json", "g.rank1.json"]
    tree = subprocess.run([GRAPHPATCH, "show", tmp_path / "g.rank1.json"], capture_output=True, text=True).stdout
    found = dict(nodes(tree))
    assert found["module.relu"] == "Tensor(2, 4)"


def test_many_starts_at_once(tmp_path: Path) -> None:
    """Several commands start at once with an empty cache, which all of them fill."""
    env = {**ENVIRONMENT, "GRAPHPATCH_CACHE": str(tmp_path)}
    command = [GRAPHPATCH, "run", "--tree", "--", sys.executable, "-c", "print(1)"]
    started = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(6)
    ]
    ends: list[tuple[str, str]] = [process.communicate(timeout=TIMEOUT) for process in started]
    assert all(out == "1\n" and "not seen" not in err for out, err in ends)
    assert len([entry for entry in tmp_path.iterdir() if entry.name.startswith((".python", "python"))]) == 1
