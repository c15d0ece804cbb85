"""The completion scripts in the shells that they are for: the options of the command, and the paths of a saved graph.

bash is always tried, zsh and fish where they are installed; `.ci/run` installs them, and has a missing one be a failure."""

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support import ENVIRONMENT, GRAPHPATCH, ROOT, TIMEOUT

ALL = ["bash", "zsh", "fish"]
SHELLS = [shell for shell in ALL if os.environ.get("GRAPHPATCH_NEEDS_SHELLS") or shutil.which(shell)]
GRAPH = ROOT / "tests/fuzz/seeds/graph-dynamic.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a graph whose name needs quotes, and the scripts, as the command writes them."""
    shutil.copy(GRAPH, tmp_path / "a graph.json")
    for shell in ALL:
        name = {"bash": "graphpatch.bash", "zsh": "site/_graphpatch", "fish": "graphpatch.fish"}[shell]
        (tmp_path / name).parent.mkdir(exist_ok=True)
        made = subprocess.run(
            [GRAPHPATCH, "complete", "--shell", shell], capture_output=True, env=ENVIRONMENT, check=True
        )
        (tmp_path / name).write_bytes(made.stdout)
    return tmp_path


# What an interactive shell reads before the line.
START = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "PS1='ready> '; source graphpatch.bash"),
    "zsh": (["zsh", "-f", "-i"], "PS1='ready> '; fpath=($PWD/site $fpath); autoload -U compinit; compinit -u -D"),
    "fish": (["fish", "--no-config", "--private"], "function fish_prompt; echo 'ready> '; end; source graphpatch.fish"),
}


class Terminal:
    """A shell at a terminal of its own."""

    def __init__(self, shell: str, folder: Path) -> None:
        command, start = START[shell]
        environment = {
            **ENVIRONMENT,
            "PATH": f"{GRAPHPATCH.parent}:{os.environ['PATH']}",
            "TERM": "dumb",
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder),
            "XDG_DATA_HOME": str(folder),
        }
        self.process, self.ours = pty.fork()
        if self.process == 0:
            os.chdir(folder)
            os.execvpe(command[0], command, environment)
        self.seen = ""
        self.type(start + "; echo be''gins\n")
        self.wait_for("begins")

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def wait_for(self, text: str) -> None:
        end = time.monotonic() + TIMEOUT
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self.ours], [], [], 0.1)[0]:
                self.seen += os.read(self.ours, 65536).decode(errors="replace")

    def close(self) -> None:
        os.kill(self.process, signal.SIGKILL)
        os.close(self.ours)
        os.waitpid(self.process, 0)


@pytest.mark.parametrize("shell", SHELLS)
def test_paths_are_completed(shell: str, folder: Path) -> None:
    """`Tab` behind the beginning of a path finishes it; the result, which the command prints, says that it did."""
    terminal = Terminal(shell, folder)
    try:
        # The node `lstm.hx` is the only one with this beginning; `--counts` is the only such option.
        terminal.type("graphpatch show --cou\t 'a graph.json' lstm.h\t\n")
        terminal.wait_for("hx: ")
        terminal.type("graphpatch check 'a graph.json' --probe lstm.weight_hh\t && echo fi''ts\n")
        terminal.wait_for("fits")
    finally:
        terminal.close()


@pytest.mark.parametrize("shell", SHELLS)
def test_paths_of_one_root_are_completed(shell: str, folder: Path) -> None:
    """A path may begin with its root's name and a colon, which bash takes for a word of its own."""
    file = folder / "a graph.json"
    graphs = json.loads(file.read_text())
    other = json.loads(json.dumps(graphs["graphs"][0]).replace('"hx"', '"hidden"'))
    other["name"] = "Other.forward"
    graphs["graphs"].append(other)
    file.write_text(json.dumps(graphs))
    terminal = Terminal(shell, folder)
    try:
        terminal.type("graphpatch show 'a graph.json' Other:lstm.hid\t && echo do''ne\n")
        terminal.wait_for("hidden: ")
        terminal.wait_for("done")
        terminal.type("graphpatch show 'a graph.json' Oth\tlstm.hidd\t && echo fi''ts\n")
        terminal.wait_for("fits")
    finally:
        terminal.close()


def test_scripts_ask_the_command(folder: Path) -> None:
    """Each script asks `graphpatch complete GRAPH PREFIX`, also where its shell is not installed."""
    for name in ["graphpatch.bash", "site/_graphpatch", "graphpatch.fish"]:
        text = (folder / name).read_text()
        assert " complete " in text and "show" in text and text.count("__graphpatch_paths") != 1, name
    zsh = (folder / "site/_graphpatch").read_text()
    # The function around the generated one has to be there before the last lines call it.
    assert zsh.index("functions[_graphpatch_options]") < zsh.rindex("funcstack[1]")
