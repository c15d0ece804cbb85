"""Takes README's pictures: what `make demo` says on a terminal, and the page that it makes, by a headless Chromium.

    python take.py        (in the checkout, after `make demo`; CHROMIUM names the browser)
"""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGES = Path(__file__).resolve().parent
STYLE = "background:#1e1e1e;color:#ddd;font:15px/1.35 'DejaVu Sans Mono',monospace;padding:14px;margin:0;white-space:pre"


def color(number: int) -> str:
    """One of a terminal's 256 colors."""
    if number >= 232:
        return f"rgb({', '.join([str(8 + 10 * (number - 232))] * 3)})"
    if number < 16:
        return "#000" if number == 0 else "#fff"
    levels = [0, 95, 135, 175, 215, 255]
    rest = number - 16
    return f"rgb({levels[rest // 36]}, {levels[rest // 6 % 6]}, {levels[rest % 6]})"


def spans(text: str) -> str:
    """ANSI colors as HTML."""
    out, open_spans = "", 0
    for piece in re.split(r"(\x1b\[[0-9;]*m)", text):
        codes = re.fullmatch(r"\x1b\[([0-9;]*)m", piece)
        if not codes:
            out += html.escape(piece)
        elif codes[1] in ("", "0"):
            out += "</span>" * open_spans
            open_spans = 0
        else:
            back = re.search(r"48;5;(\d+)", codes[1])
            style = f"background:{color(int(back[1]))}" if back else ""
            fore = re.search(r"(?:^|;)(30|97)(?:;|$)", codes[1])
            style = f"color:{'#000' if fore[1] == '30' else '#fff'}" if fore else style
            out += f'<span style="{style}">'
            open_spans += 1
    return out + "</span>" * open_spans


def take(browser: str, page: str, picture: Path, size: str) -> None:
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=4000"]
    command = [browser, *options, f"--window-size={size}", f"--screenshot={picture}", page]
    subprocess.run(command, check=True, capture_output=True, timeout=300)


def main() -> None:
    names = ["chromium", "chromium-browser", "google-chrome"]
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)))
    command = ["target/release/graphpatch", "demo", "build/demo", "--color", "always"]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "terminal.html"
        page.write_text(f'<meta charset="utf-8"><body style="{STYLE}">$ make demo\n{spans(said)}</body>', "utf-8")
        take(browser, page.as_uri(), IMAGES / "terminal.png", "1160,520")
    page = (ROOT / "build/demo/index.html").as_uri() + "#bert.encoder.layer_5.attention.self.softmax"
    take(browser, page, IMAGES / "page.png", "1280,800")


if __name__ == "__main__":
    main()
