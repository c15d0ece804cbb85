"""HTML for notebooks: tables, heat maps and trees that fold. It needs no style sheet and no script."""

from __future__ import annotations

import html
from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts."""
    titles = "".join(f"<th style='text-align:left'>{html.escape(title)}</th>" for title in head)
    lines = ["".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def heat(rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]]) -> str:
    """A heat map: blue below zero, red above, white at zero."""
    finite = [abs(value) for line in values for value in line if value == value and abs(value) != float("inf")]
    most = max(finite, default=0.0) or 1.0
    titles = "".join(f"<th style='padding:0 .3em'>{html.escape(column)}</th>" for column in columns)
    lines = []
    for row, line in zip(rows, values, strict=True):
        cells = "".join(_cell(value, most) for value in line)
        lines.append(f"<tr><th style='text-align:left'>{html.escape(row)}</th>{cells}</tr>")
    return f"<table style='border-collapse:collapse'><tr><th></th>{titles}</tr>{''.join(lines)}</table>"


def _cell(value: float, most: float) -> str:
    share = min(1.0, abs(value) / most) if value == value else 0.0
    faded = round(255 * (1 - share))
    color = f"rgb(255,{faded},{faded})" if value >= 0 else f"rgb({faded},{faded},255)"
    return f"<td title='{value:.6g}' style='background:{color};color:#000;padding:0 .3em'>{value:.3g}</td>"


# How many characters stand in front of a name for each level of a tree that is given as text.
_LEVEL = 2


def tree_of_lines(lines: Sequence[str]) -> str:
    """A tree, given as lines of text, as one that folds. At first, nodes two levels down are folded."""
    text, _ = _tree(lines, 0, 0)
    return f"<div style='font-family:monospace;line-height:1.3'>{text}</div>"


def _tree(lines: Sequence[str], at: int, depth: int) -> tuple[str, int]:
    """The tree whose first line is number ``at``, and the number of the line that follows the tree."""
    title = html.escape(lines[at][depth * _LEVEL :])
    at += 1
    parts = []
    while at < len(lines) and _depth(lines[at]) > depth:
        part, at = _tree(lines, at, depth + 1)
        parts.append(part)
    if not parts:
        return f"<div style='margin-left:1.1em'>{title}</div>", at
    below = f"<div style='margin-left:1.1em'>{''.join(parts)}</div>"
    return f"<details{' open' if depth == 0 else ''}><summary>{title}</summary>{below}</details>", at


def _depth(line: str) -> int:
    return (len(line) - len(line.lstrip("│├└─ "))) // _LEVEL
