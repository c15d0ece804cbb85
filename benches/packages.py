"""What it costs to look inside a package of AOTInductor's: ratios to the same package, loaded once more and never
looked at, from pairs of runs that follow each other. The targets are those of a quiet machine."""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import torch
from torch import Tensor, nn

from compiled import Transformer, paired
from libgraphpatch import PatchableGraph, ZeroPatch


class Holder(nn.Module):
    """Calls a package."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.package = torch._inductor.aoti_load_package(file)

    def forward(self, x: Tensor) -> Any:
        return self.package(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=400)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, x = Transformer(2, 64, 4, 100).eval(), torch.randint(0, 100, (2, 16))
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        program = torch.export.export(model, (x,))
        file = torch._inductor.aoti_compile_and_package(program, package_path=f"{folder}/model.pt2")
        bare, seen = Holder(file), Holder(file)
        pg = PatchableGraph(seen, x)
        assert torch.equal(seen(x), bare(x))
        print(f"package: idle it takes {paired(rounds, lambda: seen(x), lambda: bare(x))} of the package alone")
        values = [path for path in pg.cache(x) if path.startswith("aoti_model.") and ".output" not in path]
        with pg.patch({path: ZeroPatch(slice=(..., slice(0, 0))) for path in values}):
            assert torch.equal(seen(x), bare(x)), "a patch of no element changes no bit"
            ratio = paired(rounds, lambda: seen(x), lambda: bare(x))
        print(f"package: patched at all {len(values)} of its values it takes {ratio} of the package alone")


if __name__ == "__main__":
    main()
