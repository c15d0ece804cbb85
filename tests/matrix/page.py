"""The page `docs/matrix.md`: read by the tests, written by `python tests/matrix/page.py` (`make matrix`);
FAMILIES=GPT-2 writes the part of that family."""

from __future__ import annotations

import inspect

import setting  # sets the paths of imports
from families import FAMILIES
from inside import METHODS as CODE
from results import HOSTS, METHODS, chosen, result


def section(family: str) -> str:
    return f"## {family}"


def cell(method: str, family: str, host: str) -> str:
    """What the page says."""
    part = setting.PAGE.read_text("utf-8").partition(section(family))[2]
    row = next((line for line in part.splitlines() if line.startswith(f"| {method} |")), "")
    cells = row.strip("|").split("|")[1:]
    return cells[HOSTS.index(host)].strip() if len(cells) == len(HOSTS) else "–"


def lines(method: str) -> int:
    """How many lines of code a method has, in this process."""
    code = inspect.getsource(CODE[method]).split('"""')[2]
    return len([line for line in code.splitlines() if line.strip()])


def page(families: list[str]) -> str:
    said = [
        "# Methods and models",
        "",
        "Seven methods that people compare tools by, on four families of models, in every host: whether the result equals that of",
        "plain PyTorch with hooks, up to 1e-5 of the largest value. Models are small ones of transformers with random weights.",
        "`make matrix` makes the page, and `make test-matrix` compares; the code of every method is in `tests/matrix`.",
        "",
        "| host | what it is |",
        "|---|---|",
        "| eager | `PatchableGraph(model, x)` |",
        '| compiled | the same of `torch.compile(model, backend="aot_eager")`; `COMPILER=inductor` has it make code |',
        "| exported | the same of `torch.export.export(model, (x,)).module()` |",
        "| TorchScript | the same of a module that calls `torch.jit.trace(model, x)` |",
        "| C++ | a program with a `graphpatch::Session`, which loads the traced model |",
        "| command | `graphpatch run` and `graphpatch sweep --fork`, on a program that loads it and knows nothing of us |",
        "",
        "`refused`: attribution patching needs the gradient of a number that is computed from the output. The command knows of no",
        "such number, and says that there is no such patch.",
        "",
        "| method | in libgraphpatch's Python package |",
        "|---|---|",
        *[f"| {method} | {(n := lines(method))} {'line' if n == 1 else 'lines'} |" for method in METHODS],
        "",
    ]
    for family in FAMILIES:
        said += [section(family), "", f"| method | {' | '.join(HOSTS)} |", f"|---|{'---|' * len(HOSTS)}"]
        told = result if family in families else cell  # what the page says of the others stays
        for method in METHODS:
            said.append(f"| {method} | {' | '.join(told(method, family, host) for host in HOSTS)} |")
        said.append("")
    return "\n".join(said)


if __name__ == "__main__":
    setting.PAGE.write_text(page(chosen("FAMILIES", [*FAMILIES])), encoding="utf-8")
