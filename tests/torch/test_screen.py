"""`graphpatch live` on a terminal: driven by keys, read as a person reads it."""

import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from screen import Screen
from served import Served, expected
from support import GRAPHPATCH, PROGRAMS, TIMEOUT, Saved, wait_until

LIVE = (GRAPHPATCH, "run", "--live", "--")


@pytest.fixture
def served(tuple_output: Callable[[str], Saved]) -> Iterator[Served]:
    with tempfile.TemporaryDirectory(prefix="gp-") as name:
        program = Served([*LIVE, PROGRAMS / "served", *tuple_output("scripted").args()], Path(name))
        program.pid()
        yield program
        program.process.kill()
        program.process.communicate()


@pytest.fixture
def screen(served: Served) -> Iterator[Screen]:
    shown = Screen([GRAPHPATCH, "live"], served.environment)
    yield shown
    shown.close()


def test_it_is_used_by_keys(served: Served, screen: Screen, tuple_output: Callable[[str], Saved]) -> None:
    bare, patched, _ = expected(tuple_output("scripted"))
    screen.wait_for("waiting for the next run")
    for _ in range(3):
        assert served.run() == bare
    screen.wait_for("<root>: Graph(5)")
    screen.wait_for("- linear_1: Graph(5)")
    # Searching goes to the next path with the text; n to the one after it.
    screen.press("/linear.out")
    screen.wait_for("search: linear.out_")
    screen.press("\r")
    screen.press("p")
    screen.wait_for("patch: linear.output=zero_")
    for _ in range(len("=zero")):
        screen.press("\x7f")
    screen.press("[..., 0]=zero\r")
    screen.wait_for("on  linear.output[..., 0]=zero  applied 0")
    assert served.run() == patched
    screen.wait_for("applied 1")
    # Tab goes to the patches; Enter switches the one at the cursor.
    screen.press("\t\r")
    screen.wait_for("off linear.output[..., 0]=zero")
    assert served.run() == bare
    screen.press("\r")
    screen.wait_for("on  linear.output[..., 0]=zero")
    assert served.run() == patched
    # A watched value moves.
    screen.press("\tw")
    screen.wait_for("no run has come by yet")
    assert served.run() == patched
    shown = screen.wait_for("nan 0")
    assert "norm" in shown and "█" in shown
    screen.press("\tx")
    wait_until(lambda: "linear.output[..., 0]" not in screen.text(), "the patch's end")
    assert served.run() == bare
    screen.press("\t/nowhere\r")
    screen.wait_for("no path contains nowhere")
    screen.press("p")
    screen.wait_for("patch: ")
    screen.press("\x1b")
    screen.wait_for("q quit")
    screen.press("q")
    assert screen.end() == 0 and screen.is_as_before()
    # What it watched and recorded for has gone with it.
    wait_until(lambda: served.live("counts") == "", "the probe's end")
    assert served.run() == bare
    stdout, _, code = served.end()
    assert (stdout, code) == ("", 7)


def test_a_patch_that_is_refused_is_reported(served: Served, screen: Screen) -> None:
    screen.wait_for("waiting for the next run")
    screen.press("p")
    screen.wait_for("patch: =zero_")
    screen.press("=nonsense\r")
    screen.wait_for("nonsense")
    wait_until(lambda: "patch: =zero" not in screen.text(), "the answer")
    assert "nonsense" in screen.text() and "applied" not in screen.text()
    screen.press("\x03")
    assert screen.end() == 0 and screen.is_as_before()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_as_it_was(number: int, screen: Screen) -> None:
    screen.wait_for("tree")
    screen.process.send_signal(number)
    assert screen.end() == 0 and screen.is_as_before()


def test_the_programs_end_ends_it(served: Served, screen: Screen) -> None:
    screen.wait_for("tree")
    assert served.end()[2] == 7
    assert screen.end() == 2 and screen.is_as_before()
    assert "has hung up" in screen.text()


def test_without_a_terminal_the_processes_are_listed(served: Served) -> None:
    assert str(served.pid()) in served.live()


def test_it_ends_when_its_terminal_is_gone(screen: Screen) -> None:
    screen.wait_for("waiting for the next run")
    screen.hang_up()
    screen.process.wait(TIMEOUT)
