"""Runs the snippets of docs/moving.md for one library, in this interpreter.

    python snippets.py LIBRARY PAGE GIVEN OUT

GIVEN has the weights and tensors for all libraries, because another torch may make other random numbers of a seed. For
each heading, the results (RESULTS) of the snippet below it are written to OUT. Exits with 77 where the library is not
installed.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

RESULTS = ("activation", "logits", "activations", "vector")


def blocks(page: str) -> list[tuple[str, set[str], str]]:
    """Heading, labels and code of every Python block of the page."""
    found, heading = [], ""
    for match in re.finditer(r"^## ([^\n]*)$|^```python([^\n]*)\n(.*?)^```$", page, re.M | re.S):
        if match[1] is not None:
            heading = match[1]
        else:
            found.append((heading, set(match[2].split()), match[3]))
    return found


def given(namespace: dict[str, Any]) -> dict[str, Any]:
    """The weights and tensors that the setup made from random numbers."""
    return {"weights": namespace["gpt2"].state_dict(), "steering": namespace["steering"]}


class Snippets:
    """The page's snippets for one library, after its setup."""

    def __init__(self, library: str, page: str, values: dict[str, Any] | None = None) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.count = 0
        self.library, self.blocks = library, blocks(page)
        self.namespace: dict[str, Any] = {"tokenizer": self._tokenizer()}
        self._setup({"setup"})
        if values is not None:
            self.namespace["gpt2"].load_state_dict(values["weights"], strict=False)
            self.namespace["steering"] = values["steering"]
        self._setup({"setup", library})

    def _setup(self, labels: set[str]) -> None:
        for _, block, code in self.blocks:
            if block == labels:
                self._execute(code, self.namespace)

    def _execute(self, code: str, namespace: dict[str, Any]) -> None:
        """Runs code from a file, because nnsight reads the source of the code that it runs."""
        self.count += 1
        file = Path(self.folder.name) / f"snippet_{self.count}.py"
        file.write_text(code)
        exec(compile(code, str(file), "exec"), namespace)

    def run(self, heading: str) -> dict[str, Any]:
        """The results of the heading's snippet, detached."""
        (code,) = [
            code
            for here, labels, code in self.blocks
            if here == heading and self.library in labels and "setup" not in labels
        ]
        namespace = {**self.namespace, "__name__": "snippet"}
        self._execute(code, namespace)
        return {name: _detached(namespace[name]) for name in RESULTS if name in namespace}

    def _tokenizer(self) -> Any:
        """A tokenizer of the words w0 to w99, for libraries that need one. It must be loaded from a folder."""
        from tokenizers import Tokenizer, models
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(100)}, unk_token="w0"))
        special = {f"{name}_token": "w0" for name in ("bos", "eos", "pad", "unk")}
        PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(self.folder.name)
        return AutoTokenizer.from_pretrained(self.folder.name)


def _detached(value: Any) -> Any:
    return [_detached(element) for element in value] if isinstance(value, (list, tuple)) else value.detach().clone()


def main() -> int:
    library, page, values, out = sys.argv[1:]
    if importlib.util.find_spec(library) is None:
        return 77
    import torch

    torch.set_num_threads(1)
    text = Path(page).read_text()
    snippets = Snippets(library, text, torch.load(values))
    headings = {heading: None for heading, labels, _ in blocks(text) if library in labels and "setup" not in labels}
    torch.save({heading: snippets.run(heading) for heading in headings}, out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
