"""A terminal: a program runs in it, keys go in, and what stands on the screen is read."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from typing import Any

from support import wait_until

ROWS, COLUMNS = 24, 100
# What a program may send: a sequence with parameters, another escape, or a character.
TOKEN = re.compile(r"\x1b\[([?>=]?)([\d;]*)[ -/]*([@-~])|\x1b[@-Z\\-_78=>]|\x1b[()][A-Z0-9]|[\s\S]")


class Screen:
    """The characters, the cursor, and the modes that a program has switched on."""

    def __init__(self, command: Sequence[Any], environment: Mapping[str, str]) -> None:
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self.theirs = theirs
        self.process = subprocess.Popen(
            [str(word) for word in command],
            env={**environment, "TERM": "xterm-256color"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        self.rest = ""
        self.cells = [[" "] * COLUMNS for _ in range(ROWS)]
        self.row = self.column = 0
        self.modes: set[str] = set()

    def press(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def text(self) -> str:
        """What is on the screen now."""
        while select.select([self.ours], [], [], 0)[0]:
            self._take(os.read(self.ours, 65536).decode(errors="replace"))
        return "\n".join("".join(row).rstrip() for row in self.cells)

    def wait_for(self, text: str) -> str:
        wait_until(lambda: text in self.text() or self.process.poll() is not None, text)
        shown = self.text()
        assert text in shown, shown
        return shown

    def end(self) -> int:
        """Waits for the program's end; its exit code. What it still writes is read: a terminal takes only so much."""

        def ended() -> bool:
            self.text()
            return self.process.poll() is not None

        wait_until(ended, "the program's end")
        self.text()
        return self.process.wait()

    def is_as_before(self) -> bool:
        """Whether the program has left the terminal as it was: its settings, the main screen, a cursor that is seen."""
        return termios.tcgetattr(self.theirs) == self.before and not self.modes & {"?1049", "cursor hidden"}

    def hang_up(self) -> None:
        """Takes the terminal away, as closing its window does."""
        os.close(self.ours)
        self.ours = -1

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.ours >= 0:
            os.close(self.ours)
        os.close(self.theirs)

    def _take(self, text: str) -> None:
        text = self.rest + text
        # A sequence may come in two parts.
        cut = re.search(r"\x1b(\[[?>=]?[\d;]*[ -/]*)?$", text)
        self.rest = cut[0] if cut else ""
        for token in TOKEN.finditer(text.removesuffix(self.rest) if self.rest else text):
            if token[3]:
                self._obey(token[1], token[2], token[3])
            elif not token[0].startswith("\x1b"):
                self._print(token[0])

    def _print(self, letter: str) -> None:
        if letter == "\r":
            self.column = 0
        elif letter == "\n":
            self.row = min(self.row + 1, ROWS - 1)
        elif letter >= " " and self.column < COLUMNS:
            self.cells[self.row][self.column] = letter
            self.column += 1

    def _obey(self, kind: str, given: str, letter: str) -> None:
        numbers = [int(number or 0) for number in given.split(";")]
        if kind == "?" and letter in "hl":
            mode = "cursor hidden" if given == "25" else f"?{given}"
            on = (letter == "h") != (given == "25")
            self.modes = self.modes | {mode} if on else self.modes - {mode}
        elif letter == "H":
            self.row = min(max(numbers[0], 1), ROWS) - 1
            self.column = min(max(numbers[1] if len(numbers) > 1 else 1, 1), COLUMNS) - 1
        elif letter == "J" and numbers[0] == 2:
            self.cells = [[" "] * COLUMNS for _ in range(ROWS)]
        elif letter == "n" and numbers[0] == 6:
            self.press(f"\x1b[{self.row + 1};{self.column + 1}R")
        elif letter in "ABCD":
            by = max(numbers[0], 1)
            self.row = min(max(self.row + {"A": -by, "B": by}.get(letter, 0), 0), ROWS - 1)
            self.column = min(max(self.column + {"C": by, "D": -by}.get(letter, 0), 0), COLUMNS - 1)
