"""`check` repeats a capture to verify it, and `watching` records calls that other code makes."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import Tensor, nn

from libgraphpatch import PatchableGraph, ZeroPatch, check
from nets import Function, Net
from transformers_models import build

X = torch.randn(3, 4)
IDS = torch.tensor([[5, 17, 3, 42]])


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_operation_of_a_model_again(name: str, attention: str) -> None:
    pg = PatchableGraph(build(name, attention), torch.tensor([[1, 2]]))
    before = repr(pg.graph)
    checked = pg.check(IDS, use_cache=False)
    assert checked and len(checked.compared) > 80 and len(checked.skipped) < 16, checked
    blocks = {path for path in checked.skipped if "_0." in path}
    assert all("empty" in path or "dropout" in path for path in blocks), blocks
    assert repr(pg.graph) == before


def test_containers_writes_numbers_and_randomness() -> None:
    def forward(x: Tensor, count: int = 3) -> tuple[Tensor, ...]:
        first, second = x.split(2, dim=-1)
        y = (first * count).relu_().add_(1.5)
        return torch.cat([y, second]), torch.nn.functional.dropout(y), y[..., None].topk(1)[0], torch.empty(2)

    checked = PatchableGraph(Function(forward), X).check(X)
    assert checked and {"split", "mul", "relu_", "add_", "cat", "topk"} <= {*checked.compared}, checked
    assert "random" in checked.skipped["dropout"] and "nobody has written" in checked.skipped["empty"]


def test_a_wrong_value_is_found() -> None:
    pg = PatchableGraph(Net(), X)
    whole = pg._recorder.graph().whole()
    with torch.no_grad():
        values = {**pg.cache(X)}
    assert check.check(whole, values, 1e-4, 1e-5)
    values["blocks_1.sigmoid"] = values["blocks_1.sigmoid"] + 0.5
    checked = check.check(whole, values, 1e-4, 1e-5)
    assert (
        not checked
        and {*checked.wrong} == {"blocks_1.sigmoid", "blocks_1.mul"}
        and "differs by up to 0.5" in repr(checked)
    )
    changed = copy.deepcopy(whole)
    next(node for node in changed["children"][1]["children"] if node["name"] == "sigmoid")["target"] = "aten::tanh"
    values["blocks_1.sigmoid"] = values["blocks_1.sigmoid"] - 0.5
    assert {*check.check(changed, values, 1e-4, 1e-5).wrong} == {"blocks_0.sigmoid"}


# --- watching ---


def test_the_next_call_of_somebody_else_is_recorded() -> None:
    net = Net()
    pg = PatchableGraph.watching(net)
    with pytest.raises(ValueError):
        pg.graph
    outputs: list[Tensor] = []
    thread = threading.Thread(target=lambda: outputs.append(net(X)))
    thread.start()
    thread.join()
    assert repr(pg.graph) == repr(PatchableGraph(net, X).graph)
    net(torch.randn(9, 4))
    assert pg.graph.blocks_0.output._shape == (3, 4), "only the next one"
    with pg.patch({"blocks_1.output": ZeroPatch()}):
        assert not net(X).any()
    assert torch.equal(net(X), outputs[0])


def test_a_call_that_fails_is_no_graph_and_the_next_one_is() -> None:
    net = Net()
    pg = PatchableGraph.watching(net)
    with pytest.raises(RuntimeError):
        net(torch.randn(3, 5))
    assert torch.equal(net(X), net(X))
    with pytest.raises(ValueError, match="wraps a torch.nn.Module"):
        PatchableGraph.watching(3)
    with pytest.raises(ValueError, match=r"and function is none: call it in the forward of one$"):
        PatchableGraph(lambda x: x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="TorchScript"):
        PatchableGraph.watching(torch.jit.trace(nn.Linear(4, 4), X))
    assert not net._forward_hooks and pg.module is net
