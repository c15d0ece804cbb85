"""One rank of two: patches a model whose parts lie on both, and the same model without that, and tells how far the
results lie apart. Writes a JSON object: the name of each case, and the largest difference or the error.

    python ranks.py RANK STORE OUT
"""

import json
import sys
import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import libgraphpatch as gp

WIDTH, HIDDEN = 8, 16


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(self.act(self.up(x)))
        return out


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln, self.mlp = nn.LayerNorm(WIDTH), Mlp()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.ln(x))  # type: ignore[no-any-return]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.h = nn.ModuleList([Block(), Block()])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.h:
            x = block(x)
        return x


class Manual(nn.Module):
    """Takes the parts of its weights by hand, and reduces the sum of the ranks' results itself."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(HIDDEN, WIDTH))
        self.down = nn.Parameter(torch.randn(WIDTH, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        up, down = (p.to_local() if isinstance(p, DTensor) else p for p in (self.up, self.down))
        inside = torch.relu(nn.functional.linear(x, up))
        out = nn.functional.linear(inside, down)
        if isinstance(self.up, DTensor):
            dist.all_reduce(out)
        return out * 2


def tensor_parallel(mesh: DeviceMesh, *, local: bool) -> Net:
    net = made(Net)
    for block in net.h:
        plan = {"up": ColwiseParallel(use_local_output=local), "down": RowwiseParallel()}
        parallelize_module(block.mlp, mesh, plan)
    return net


def made(kind: Any) -> Any:
    torch.manual_seed(0)
    return kind()


def patches(width: int) -> dict[str, Any]:
    one = torch.linspace(-1, 1, width)
    return {
        "zero": gp.ZeroPatch,
        "zero[0:3]": lambda: gp.ZeroPatch(slice=(..., slice(0, 3))),
        "add": lambda: gp.AddPatch(value=0.5),
        "add[0:4]": lambda: gp.AddPatch(value=1.0, slice=(..., slice(0, 4))),
        "add[-1]": lambda: gp.AddPatch(value=torch.tensor(2.0), slice=(..., -1)),
        "add tensor": lambda: gp.AddPatch(value=one),
        "replace": lambda: gp.ReplacePatch(value=0.25),
        "replace tensor": lambda: gp.ReplacePatch(value=one),
        "replace[index]": lambda: gp.ReplacePatch(value=3.0, slice=(..., torch.tensor([1, width - 2]))),
        "custom": lambda: gp.CustomPatch(custom_op=lambda value: value * 2),
        "custom[0:3]": lambda: gp.CustomPatch(custom_op=lambda value: value.flip(-1), slice=(..., slice(0, 3))),
    }


def patched(pg: Any, path: str, patch: Any, x: Tensor) -> Tensor:
    with pg.patch({path: patch}) as block:
        out: Tensor = pg(x)
    counts = block.counts[path][0]
    assert counts.applied == 1 and not counts.failed, counts
    return out


def compare(name: str, results: dict[str, Any], whole: Any, parts: Any, paths: list[str], x: Tensor) -> None:
    bare = whole(x)
    results[f"{name}: bare"] = (parts(x) - bare).abs().max().item()
    for path in paths:
        width = whole.graph[path]._shape[-1]
        for kind, patch in patches(width).items():
            case = f"{name}: {path}={kind}"
            want = patched(whole, path, patch(), x)
            results[f"{case} has an effect"] = not torch.equal(want, bare)
            try:
                results[case] = (patched(parts, path, patch(), x) - want).abs().max().item()
            except Exception as error:
                results[case] = f"{type(error).__name__}: {error}"
    results[f"{name}: after"] = (parts(x) - bare).abs().max().item()


MODULES = ["up.linear", "up.output", "up.weight", "act.input", "act.gelu", "act.output", "down.linear", "down.output"]
PATHS = [f"h_0.mlp.{path}" for path in [*MODULES, "down.weight", "down.bias", "output"]] + ["h_1.output"]


def probes(results: dict[str, Any], whole: Any, parts: Any, x: Tensor) -> None:
    for path in ("h_0.mlp.up.output", "h_0.mlp.act.gelu", "h_0.mlp.down.linear", "h_0.mlp.up.weight"):
        one, two = gp.ProbePatch[Any](), gp.ProbePatch[Any]()
        patched(whole, path, one, x)
        patched(parts, path, two, x)
        kept = two.activation
        results[f"probe: {path} is a DTensor"] = isinstance(kept, DTensor)
        results[f"probe: {path}"] = (kept.full_tensor() - one.activation).abs().max().item()


def gradients(results: dict[str, Any], whole: Any, parts: Any, x: Tensor) -> None:
    for path in ("h_0.mlp.up.linear", "h_0.mlp.act.gelu", "h_0.mlp.down.linear"):
        found = []
        for pg in (whole, parts):
            value = torch.full((4,), 0.5, requires_grad=True)
            patched(pg, path, gp.AddPatch(value=value, slice=(..., slice(0, 4))), x).square().sum().backward()
            found.append(value.grad)
            pg.zero_grad() if hasattr(pg, "zero_grad") else None
        results[f"gradient: {path}"] = (found[1] - found[0]).abs().max().item()


def manual(results: dict[str, Any], mesh: DeviceMesh, x: Tensor) -> None:
    sharded = made(Manual)
    for name, dimension in (("up", 0), ("down", 1)):
        whole = getattr(sharded, name).detach()
        part = whole.chunk(2, dimension)[mesh.get_local_rank()].contiguous()
        setattr(sharded, name, nn.Parameter(DTensor.from_local(part, mesh, [Shard(dimension)], run_check=False)))
    whole, parts = gp.PatchableGraph(made(Manual), x), gp.PatchableGraph(sharded, x)
    bare = whole(x)
    results["manual: bare"] = (parts(x) - bare).abs().max().item()
    for path, patch in (
        ("relu", gp.ZeroPatch()),
        ("mul", gp.AddPatch(value=1.0, slice=(..., 0))),
    ):
        want = patched(whole, path, patch, x)
        results[f"manual: {path}"] = (patched(parts, path, patch, x) - want).abs().max().item()
    for case, patch in (("slice", gp.ZeroPatch(slice=(..., 0))), ("add", gp.AddPatch(value=1.0))):
        try:
            patched(parts, "relu", patch, x)
            results[f"manual: relu {case} is refused"] = "it was applied"
        except Exception as error:
            results[f"manual: relu {case} is refused"] = "this rank's part of a DTensor" in str(error)


def fsdp(results: dict[str, Any], whole: Any, mesh: DeviceMesh, x: Tensor) -> None:
    net = made(Net)
    for block in net.h:
        fully_shard(block, mesh=mesh)
    fully_shard(net, mesh=mesh)
    parts = gp.PatchableGraph(net, x)
    results["fsdp: the same tree"] = repr(parts.graph) == repr(whole.graph)
    paths = ["h_0.mlp.up.weight", "h_1.mlp.down.bias", "h_0.mlp.up.linear", "h_0.mlp.output"]
    compare("fsdp", results, whole, parts, paths, x)


def main(rank: int, store: str, out: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    torch.manual_seed(1)
    x = torch.randn(3, 5, WIDTH)
    results: dict[str, Any] = {}
    whole = gp.PatchableGraph(made(Net), x)
    for name, local in (("dtensor", False), ("local", True)):
        parts = gp.PatchableGraph(tensor_parallel(mesh, local=local), x)
        results[f"{name}: the same names"] = names(parts) == names(whole)
        compare(name, results, whole, parts, PATHS, x)
        if local:
            with torch.no_grad():
                compare(f"{name} without gradients", results, whole, parts, PATHS[1::3], x)
            probes(results, whole, parts, x)
            gradients(results, whole, parts, x)
    manual(results, mesh, x)
    fsdp(results, whole, mesh, x)
    with open(out, "w") as file:
        json.dump(results, file)
    dist.barrier()
    dist.destroy_process_group()


def names(pg: Any) -> list[str]:
    return [line.split(":")[0] for line in repr(pg.graph).splitlines()]


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
