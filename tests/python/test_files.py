"""Files of the package: one that cannot be written leaves the old one as it was, and nothing beside it."""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from libgraphpatch import PatchableGraph, ZeroPatch
from libgraphpatch.cache import ActivationCache

X = torch.ones(2, 3)


class Unfit:
    """Raises when it is pickled or written as text."""

    def __reduce__(self) -> str:
        raise TypeError("no such file")

    __str__ = __reduce__


def graph() -> PatchableGraph:
    return PatchableGraph(nn.Sequential(nn.Linear(3, 3)), X)


def save(file: Path) -> None:
    pg = graph()
    pg._module.unfit = Unfit()  # type: ignore[assignment]
    pg.save(file)


def save_values(file: Path) -> None:
    pytest.importorskip("safetensors")
    ActivationCache({"a": torch.ones(2), "b": torch.ones(2).to_sparse()}).to_safetensors(file)


def save_table(file: Path) -> None:
    sweep = graph().sweep("sub_0.output", X, patch=ZeroPatch(), metric=lambda output: output.sum())
    dataclasses.replace(sweep, nodes=[Unfit()]).to_csv(file)  # type: ignore[list-item]


@pytest.mark.parametrize("write", [save, save_values, save_table])
def test_a_failure_keeps_the_old_file(write: Callable[[Path], None], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("as it was")
    with pytest.raises(Exception):  # of any kind
        write(file)
    assert file.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [file]


def test_what_takes_a_files_place_keeps_its_permissions_and_its_link(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("as it was")
    file.chmod(0o600)
    link.symlink_to(file)
    graph().save(link)
    assert link.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert torch.equal(PatchableGraph.load(file)(X), PatchableGraph.load(link)(X))
    assert sorted(tmp_path.iterdir()) == [file, link]
