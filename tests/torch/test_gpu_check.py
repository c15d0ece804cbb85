"""The scripts of `make gpu-check` still run, here on CPU values. This proves nothing about cards."""

import sys

from support import ROOT, run_process


def test_the_checks_for_cards_run_dry() -> None:
    result = run_process([sys.executable, ROOT / "tests/gpu/check.py", "--dry-run", "--no-timing"])
    assert result.code == 0, result.stdout + result.stderr
    assert result.stdout.endswith("all good\n") and result.stdout.count("good    check_") >= 10


def test_without_a_card_nothing_is_claimed() -> None:
    import torch

    if not torch.cuda.is_available():
        result = run_process([sys.executable, ROOT / "tests/gpu/check.py"])
        assert result.code == 2 and "nothing was checked" in result.stdout
