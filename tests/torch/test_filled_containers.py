"""TorchScript: a list or dict that a module fills for its caller is filled also where a patch stands at one of its elements."""

from pathlib import Path

import torch
from torch import Tensor, nn

from support import Saved, same_bits, save

X = torch.tensor([[1.0, -2.0]])


class Appends(nn.Module):
    def forward(self, x: Tensor, found: list[Tensor]) -> Tensor:
        found.append(x * 2)
        return found[0] + 1


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Appends()

    def forward(self, x: Tensor, found: list[Tensor]) -> Tensor:
        y = self.inner(x, found)
        found[1] = found[1] * 10
        return y


class Puts(nn.Module):
    def forward(self, x: Tensor, found: dict[str, Tensor]) -> Tensor:
        found["new"] = x * 2
        found["old"] = found["old"] + x
        found.pop("gone")
        return found["kept"] + 1


class Sets(nn.Module):
    """Returns the list that it was given."""

    def forward(self, found: list[Tensor]) -> list[Tensor]:
        found[0] = found[0] * 3
        return found


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.deep = Deep()
        self.puts = Puts()
        self.sets = Sets()
        self.w = nn.Parameter(torch.tensor([[4.0, 5.0]]))

    def forward(self, x: Tensor) -> tuple[list[Tensor], dict[str, Tensor], list[Tensor], Tensor, Tensor]:
        a = [x + 1, self.w]
        y = self.deep(x, a)
        b = {"old": x + 1, "kept": x + 2, "gone": x + 3}
        z = self.puts(x, b)
        c = [x + 1, x + 2]
        d = self.sets(c)
        d[1] = d[1] * 10
        return a, b, c, y, z


def run(saved: Saved, *patches: str) -> tuple[list[Tensor], dict[str, Tensor], list[Tensor], Tensor, Tensor]:
    result = saved.run("--runs", 2, patches=patches, tree=False, extra=["--on-error", "raise"]).ok()
    assert same_bits(*result.outputs[0])
    return result.output


def test_what_a_module_puts_into_a_container_is_in_the_callers(tmp_path: Path) -> None:
    saved = save(Net(), (X,), tmp_path)
    bare = saved.bare().ok().output
    elements = [f"deep.found|sub_{i}" for i in range(2)] + ["deep.inner.found|sub_0"]
    elements += [f"puts.found|{key}" for key in ("old", "kept", "gone")]
    elements += ["sets.found|sub_0", "sets.found|sub_1", "sets.output|sub_0", "sets.output|sub_1", "w"]
    for paths in (elements, ["sets.output|sub_1"]):
        assert same_bits(run(saved, *(f"{path}=add:-0.0" for path in paths)), bare), paths

    x, w = X, torch.tensor([[4.0, 5.0]])
    a, _, _, y, _ = run(saved, "deep.found|sub_0=add:100")
    assert same_bits((a, y), ((x + 1, w * 10, x * 2), x + 102))
    a, _, _, y, _ = run(saved, "deep.inner.found|sub_0=add:100", "deep.found|sub_1=add:1")
    assert same_bits((a, y), ((x + 1, (w + 1) * 10, x * 2), x + 102))
    # The root's own list holds the parameter as the patch left it.
    assert same_bits(run(saved, "w=add:1")[0], (x + 1, (w + 1) * 10, x * 2))
    _, b, _, _, z = run(saved, "puts.found|kept=add:100", "puts.found|gone=zero")
    assert same_bits((dict(b), z), ({"old": x + 1 + x, "kept": x + 2, "new": x * 2}, x + 103))
    assert same_bits(run(saved, "sets.found|sub_0=add:100")[2], ((x + 101) * 3, (x + 2) * 10))


class Keeps(nn.Module):
    """Holds the list that it returns."""

    kept: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.kept = []

    def forward(self, x: Tensor, grow: bool = False) -> list[Tensor]:
        if grow:
            self.kept.append(x * 7)
        else:
            self.kept = [x + 1, x + 2]
        return self.kept


class Fills(nn.Module):
    """Puts something into what a module has returned, and has the module put something into what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.keeps = Keeps()
        self.identity = nn.Identity()

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        got = self.keeps(x)
        got.append(x * 5)
        got[1] = got[1] * 2
        self.identity(x)
        held = self.keeps.kept[:]
        self.keeps(x, True)
        return held, got, self.keeps.kept


def test_what_is_put_into_a_returned_list_is_in_the_one_that_the_module_holds(tmp_path: Path) -> None:
    saved = save(Fills(), (X,), tmp_path)
    held, got, kept = saved.bare().ok().output
    patched = saved.run(patches=["keeps.output|sub_0=add:100"], tree=False, extra=["--on-error", "raise"]).ok().output
    assert same_bits(patched, (held, (got[0] + 100, *got[1:]), kept))
