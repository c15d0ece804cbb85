"""What requests of a vLLM server bring is checked, and done to their rows alone: without vLLM, on a module that gets a
batch as vLLM's models do. tests/vllm has the same with vLLM itself."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import graphpatch_vllm
from libgraphpatch import PatchableGraph, load_tensor
from libgraphpatch.vllm.asked import asked
from libgraphpatch.vllm.checked import places
from libgraphpatch.vllm.folder import VARIABLE, Folder
from libgraphpatch.vllm.refusals import why_refused
from libgraphpatch.vllm.steering import Part, Steering
from libgraphpatch.vllm.wire import Wire


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 8)

    def forward(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        return torch.relu(self.up(x)), residual + x


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.layers = nn.ModuleList(Layer() for _ in range(2))

    def forward(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        x = self.embed(input_ids) + positions[:, None]
        residual = torch.zeros_like(x)
        for layer in self.layers:
            x, residual = layer(x, residual)
        return (x + residual) @ self.embed.weight.T


NODE = "layers_0.output|sub_0"
VECTOR = torch.arange(8.0)


class Server:
    """A model, its folder, and requests in batches."""

    def __init__(self, path: Path) -> None:
        torch.manual_seed(0)
        self.folder, self.model = Folder(), Model().eval()
        self.steering = Steering(self.model, self.folder, "7")
        with torch.inference_mode():
            for size in (5, 3):  # the warm-up, and a call for requests
                batch = torch.arange(size), torch.arange(size)
                if size == 5:
                    self.model(*batch)
                    self.steering.warmed_up()
                else:
                    self.call([], *batch)

    def call(self, parts: list[Part], tokens: Tensor, positions: Tensor) -> Tensor:
        with torch.inference_mode(), self.steering.batch(parts, len(tokens), {part.request for part in parts}):
            return self.model(tokens, positions)

    def extra(self, *given: Any, prompt: int = 3, kept: str = "") -> dict[str, Any]:
        found = places(asked([*given]), self.folder, "7", prompt, 20)
        return {"graphpatch": Wire(found, kept).packed()}

    def by_hand(self, tokens: Tensor, positions: Tensor, change: Any) -> Tensor:
        """The same with a forward hook."""
        self.steering.pause()
        hook = self.model.layers[0].register_forward_hook(lambda _m, _a, out: (change(out[0].clone()), out[1]))
        try:
            with torch.inference_mode():
                return self.model(tokens, positions)
        finally:
            hook.remove()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    save_file({"v": VECTOR}, tmp_path / "v#1.safetensors")
    torch.save(VECTOR, tmp_path / "v.pt")
    return Server(tmp_path)


def patch(kind: str = "add", **more: Any) -> dict[str, Any]:
    return {"path": NODE, "kind": kind, **more}


TOKENS, POSITIONS = torch.tensor([4, 9, 9, 2, 7, 1]), torch.tensor([0, 1, 2, 3, 0, 1])


def test_rows_of_several_requests_in_one_batch(server: Server) -> None:
    parts = [
        Part("a", 0, 0, 3, server.extra(patch(value="@v\\#1.safetensors#v", scale=2, positions="1.."))),
        Part("b", 3, 3, 1, None),
        Part("c", 4, 0, 2, server.extra(patch("zero", slice="[:4]"), patch("add", value=1, slice="[-1]"))),
    ]

    def change(value: Tensor) -> Tensor:
        value[1:3] += 2 * VECTOR
        value[4:, :4] = 0
        value[4:, -1] += 1
        return value

    for _ in range(2):
        assert torch.equal(server.call(parts, TOKENS, POSITIONS), server.by_hand(TOKENS, POSITIONS, change))
    bare = server.by_hand(TOKENS, POSITIONS, lambda value: value)
    assert torch.equal(server.call([Part("b", 0, 0, 6, None)], TOKENS, POSITIONS), bare)


@pytest.mark.parametrize(
    ("limits", "rows"),
    [
        ({"positions": "prompt"}, [0, 1, 2]),
        ({"positions": "generated"}, [3, 4, 5]),
        ({"positions": [0, 5]}, [0, 5]),
        ({"positions": 2}, [2]),
        ({"steps": 0}, [0, 1, 2]),
        ({"steps": "1..3"}, [3, 4]),
        ({"steps": "..2", "positions": "2.."}, [2, 3]),
        ({}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_limits_are_counted_in_the_requests_own_text(server: Server, limits: dict[str, Any], rows: list[int]) -> None:
    """The first five tokens of the text are computed, and then, behind two rows of another request, the sixth: the prompt has three."""
    extra = server.extra(patch("replace", value=[0.5] * 8, **limits))
    whole = torch.arange(6)
    for first, count, start in ((0, 5, 0), (5, 1, 2)):
        tokens = torch.cat([torch.full((start,), 11), TOKENS[first : first + count]])
        positions = torch.cat([torch.arange(start), whole[first : first + count]])
        meant = [start + row - first for row in rows if first <= row < first + count]

        def change(value: Tensor, meant: list[int] = meant) -> Tensor:
            value[meant] = 0.5
            return value

        others = [Part("other", 0, 0, start, None)] if start else []
        computed = server.call([*others, Part("a", start, first, count, extra)], tokens, positions)
        assert torch.equal(computed, server.by_hand(tokens, positions, change))


def test_probes_keep_rows_by_position(server: Server, tmp_path: Path) -> None:
    seen: list[Tensor] = []

    def look(value: Tensor) -> Tensor:
        seen.append(value)
        return value

    extra = server.extra(
        patch("probe"), patch(value=1), patch("probe", positions="last"), prompt=2, kept="kept/a.safetensors"
    )
    # A prompt in two pieces, a token, and that token again, as after the engine has put the request off.
    for first, count in ((0, 1), (1, 1), (2, 1), (2, 1)):
        tokens, positions = TOKENS[first : first + count], torch.arange(first, first + count)
        server.by_hand(tokens, positions, look)
        server.call([Part("a", 0, first, count, extra)], tokens, positions)
    told = server.steering.report("a", 4, True)
    assert told is not None and "errors" not in told
    assert [one["applied"] for one in told["patches"]] == [4, 4, 3] and told["kept"] == "kept/a.safetensors"
    kept = load_file(tmp_path / told["kept"])
    assert torch.equal(kept[NODE], torch.cat(seen[:3])) and kept[f"{NODE}#positions"].tolist() == [0, 1, 2]
    assert torch.equal(kept[f"{NODE}~2"], torch.cat(seen[1:3]) + 1)
    assert server.steering.report("a", 4, True) is None


def test_what_fails_is_reported_and_the_others_go_on(server: Server) -> None:
    """A graph that was true once: today the node has other rows."""
    extra = server.extra(patch(value=1))
    extra["graphpatch"]["places"][0][0] = "embed.weight"
    other = server.extra(patch("zero"))
    bare = server.by_hand(TOKENS, POSITIONS, lambda value: torch.cat([value[:3], 0 * value[3:]]))
    parts = [Part("a", 0, 0, 3, extra), Part("b", 3, 3, 3, other)]
    assert torch.equal(server.call(parts, TOKENS, POSITIONS), bare)
    told = server.steering.report("a", 4, True)
    assert told is not None and told["patches"][0]["failed"] == 1 and "embed.weight" in told["errors"][0]
    told = server.steering.report("b", 4, True)
    assert told is not None and told["patches"][0] == {"path": NODE, "kind": "zero", "applied": 1, "failed": 0}


@pytest.mark.parametrize("path", ["a..b", None])
def test_a_request_that_nobody_has_checked_harms_no_other(server: Server, path: str | None) -> None:
    extra: dict[str, Any] = server.extra(patch(value=1))
    if path is None:
        extra["graphpatch"] = [patch(value=1)]  # as the client wrote it
    else:
        extra["graphpatch"]["places"][0][0] = path
    parts = [Part("a", 0, 0, 3, extra), Part("b", 3, 3, 3, server.extra(patch("zero")))]
    expected = server.by_hand(TOKENS, POSITIONS, lambda value: torch.cat([value[:3], 0 * value[3:]]))
    for _ in range(2):
        assert torch.equal(server.call(parts, TOKENS, POSITIONS), expected)
    told = server.steering.report("a", 4, True)
    assert told is not None and len(told["errors"]) == 1


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("[{", "is no JSON"),
        ([], "the list is empty"),
        ([3], "give an object with a path"),
        ([patch("multiply", value=1)], "kind is one of"),
        ([patch(value=1, rows=2)], "rows: is not known"),
        ([patch()], "takes a value"),
        ([patch("zero", value=1)], "takes no value"),
        ([patch("zero", scale=1)], "takes no scale"),
        ([patch(value=1, scale="2")], "scale is a number"),
        ([patch(value=1, positions="5...")], "positions='5...'"),
        ([patch(value=1, steps=-1)], "steps=[-1]"),
        ([patch(value=1, positions="last")], "is for probes"),
        ([patch("probe", slice="[0]")], "takes no slice"),
        ([patch(value=1, slice="[")], "character"),
        ([patch(value="v.pt")], "@FILE#KEY"),
        ([patch(value=True)], "value is a number"),
        ([patch(value=[1, "x"])], "no list of numbers"),
        ([patch(value=[])], "no elements"),
        ([patch(value=[1, 2, 3])], "does not broadcast to one token's, (8,)"),
        ([patch(value=[1] * 8, slice="[:4]")], "does not broadcast to one token's, (4,)"),
        ([patch("zero", slice="[8]")], "8"),
        ([patch(value="@none.pt")], "none.pt"),
        ([patch(value="@../v.pt")], "outside of the server's folder"),
        ([patch(value="@/etc/hostname")], "outside of the server's folder"),
        ([patch(value="@v\\#1.safetensors#w")], "w"),
        ([{"path": "layers_0.outptu", "kind": "zero"}], "layers_0.output"),
        ([{"path": "layers_0", "kind": "zero"}], "is a scope"),
        ([{"path": "layers_9*.output", "kind": "zero"}], "matches no tensor"),
        ([{"path": "layers_0.up.weight", "kind": "zero"}], "which all requests share"),
    ],
)
def test_a_request_that_is_malformed_is_refused(server: Server, given: Any, why: str) -> None:
    with pytest.raises(ValueError) as refused:
        places(asked(given), server.folder, "7", 3, 20)
    assert str(refused.value).startswith("graphpatch") and why in str(refused.value)


def test_a_request_before_the_graph_is_known_is_refused(server: Server) -> None:
    with pytest.raises(ValueError, match="not recorded yet"):
        places(asked([patch("zero")]), server.folder, "8", 3, 20)


def test_texts_lists_and_patterns_mean_the_same(server: Server) -> None:
    one = patch("zero")
    for given in (one, [one], json.dumps(one), json.dumps([one]), [json.dumps(one)]):
        assert [place.path for place in places(asked(given), server.folder, "7", 3, 20)] == [NODE]
    every = {"path": "layers_*.output|sub_0", "kind": "zero"}
    assert [place.path for place in places(asked(every), server.folder, "7", 3, 20)] == [
        NODE,
        NODE.replace("0", "1", 1),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_a_value_arrives_as_it_was_sent(server: Server, tmp_path: Path, dtype: torch.dtype) -> None:
    value = (torch.randn(1, 8) > 0).to(dtype) if dtype == torch.bool else (10 * torch.randn(1, 8)).to(dtype)
    save_file({"x": value}, tmp_path / "x.safetensors")
    read = load_tensor(f"@{tmp_path}/x.safetensors#x")
    assert torch.equal(read, value) and read.dtype == dtype
    carried = Wire.unpacked(Wire(places(asked(patch(value="@x.safetensors#x")), server.folder, "7", 3, 20)).packed())
    sent = carried.places[0].value
    assert isinstance(sent, Tensor) and torch.equal(sent, value) and sent.dtype == dtype


def test_a_file_that_changes_is_read_again(server: Server, tmp_path: Path) -> None:
    assert torch.equal(server.folder.tensor("@v.pt"), VECTOR)
    torch.save(torch.zeros(9), tmp_path / "v.pt")
    assert torch.equal(server.folder.tensor("@v.pt"), torch.zeros(9))


def config(**more: Any) -> Any:
    """What of a server's configuration matters."""
    parallel = {"tensor_parallel_size": 1, "pipeline_parallel_size": 1, "use_ubatching": False}
    return SimpleNamespace(
        model_config=SimpleNamespace(enforce_eager=more.pop("enforce_eager", True)),
        speculative_config=more.pop("speculative_config", None),
        parallel_config=SimpleNamespace(**parallel | more),
    )


@pytest.mark.parametrize(
    ("server_has", "request_has", "why"),
    [
        ({}, {}, ""),
        ({"enforce_eager": False}, {}, "--enforce-eager"),
        ({"tensor_parallel_size": 2}, {}, "--tensor-parallel-size"),
        ({"pipeline_parallel_size": 2}, {}, "--pipeline-parallel-size"),
        ({"use_ubatching": True}, {}, "--enable-dbo"),
        ({"speculative_config": object()}, {}, "--speculative-config"),
        ({}, {"n": 2}, "leave out n"),
        ({}, {"stop": ["."]}, "stop_token_ids"),
        ({}, {"resumable": True}, "whose prompt goes on"),
    ],
)
def test_what_a_server_cannot_do_is_said(server_has: dict[str, Any], request_has: dict[str, Any], why: str) -> None:
    sampling = SimpleNamespace(n=request_has.get("n", 1), stop=request_has.get("stop"))
    request = SimpleNamespace(resumable=request_has.get("resumable", False))
    said = why_refused(config(**server_has), sampling, request, True)
    assert said == "" if not why else why in said
    if "n" in request_has or "stop" in request_has:
        assert why_refused(config(), sampling, request, False) == "", "without probes it is fine"


class Compiled:
    """Not a module: what compiles one may call it by this."""

    def __call__(self, *_args: Any) -> Any:
        raise AssertionError("nothing is compiled")


class Wrapped(Layer):
    """As vLLM's models: their own call goes on to `forward`, or to the call of a class that is no module."""

    eager = True

    def __call__(self, *args: Any) -> Any:
        if self.eager:
            return self.forward(*args)
        return Compiled.__call__(self, *args)  # type: ignore[arg-type]


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = Wrapped()

    def forward(self, x: Tensor) -> Any:
        return self.layer(x, x)


def test_a_call_that_names_another_classs_call_is_seen() -> None:
    """Also after torch.compile has compiled something, which ends that direct calls of `forward` are seen."""
    pg = PatchableGraph(Outer(), torch.ones(2, 8))
    torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2))
    with pg.recording():
        pg(torch.ones(4, 8))
    assert pg.graph.layer.up.output._shape == (range(2, 5), 8)


@pytest.mark.parametrize("disable, installs", [(None, True), ("", True), ("0", True), ("1", False), ("yes", False)])
def test_the_plugin_can_be_switched_off(disable: str | None, installs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """``GRAPHPATCH_DISABLE`` means here what it means everywhere: empty and ``0`` switch nothing off, all else does."""
    installed: list[str] = []
    module = SimpleNamespace(install=lambda: installed.append("installed"))
    monkeypatch.setattr(graphpatch_vllm.importlib, "import_module", lambda name: module)
    monkeypatch.setenv("GRAPHPATCH_VLLM", "folder")
    monkeypatch.delenv("GRAPHPATCH_DISABLE", raising=False)
    if disable is not None:
        monkeypatch.setenv("GRAPHPATCH_DISABLE", disable)
    graphpatch_vllm.register()
    assert bool(installed) == installs
