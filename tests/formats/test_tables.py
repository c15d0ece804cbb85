"""Parquet tables, read by pyarrow."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from support import GRAPHPATCH, Result, run_process


def test_a_sweep(tmp_path: Path, run_net: Callable[..., Result]) -> None:
    files = [tmp_path / f"table.{ending}" for ending in ("parquet", "csv", "json")]
    outputs = [option for file in files for option in ("-o", file)]
    metrics = ["--metric", "sum=regex:(\\S+)", "--metric", "distance:output"]
    run_net("sweep", "--nodes", "blocks_*.fc.output", *metrics, *outputs, runs=1)
    table = pq.read_table(files[0])
    rows = list(csv.DictReader(files[1].open()))
    assert table.column_names == list(rows[0])
    assert table.column("node").to_pylist() == [row["node"] for row in rows]
    assert table.column("failed").null_count == len(rows) == 2
    for name in ("sum", "sum - bare", "distance:output"):
        assert table.column(name).to_pylist() == pytest.approx([float(row[name]) for row in rows])
    settings = json.loads(table.schema.metadata[b"graphpatch-sweep"])
    assert settings == json.loads(files[2].read_text())["settings"]


def test_the_statistics_of_values(tmp_path: Path, run_net: Callable[..., Result]) -> None:
    graph, kept, file = (tmp_path / name for name in ("g.json", "k.safetensors", "s.parquet"))
    run_net("run", "--graph", graph, "--record", "blocks_0.output", "--probe", "output", "--save", kept)
    run_process([GRAPHPATCH, "view", graph, "--values", kept, "--statistics", file]).ok()
    values = load_file(kept)
    rows = {row["key"]: row for row in pq.read_table(file).to_pylist()}
    assert set(rows) == set(values)
    for key, value in values.items():
        row = rows[key]
        assert (row["dtype"], row["shape"], row["count"]) == ("float32", str(list(value.shape)), value.numel())
        found = [row[name] for name in ("min", "max", "mean", "std", "norm")]
        double = value.double()
        expected = [double.min(), double.max(), double.mean(), double.std(), double.norm()]
        assert found == pytest.approx([float(number) for number in expected])
