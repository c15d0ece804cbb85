"""Fixtures: saved graphs, pages made of them, and a headless Chromium that looks at the pages."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from pages import FLAGS, GRAPHPATCH, HOSTS, ROOT, TIMEOUT, browser_path, run, synthetic, until

sys.path.insert(0, str(ROOT / "build/view-tests"))  # what tests/view/requirements.txt names


def pytest_configure(config: pytest.Config) -> None:
    if not GRAPHPATCH.exists():
        pytest.exit(f"not built: {GRAPHPATCH}; run `make build`", returncode=2)
    if browser_path() is None:
        message = "no Chromium was found: install one (Debian: `apt-get install chromium`), or name it in CHROMIUM"
        # CI sets this. On other machines without a browser, a message says that tests are left out.
        if os.environ.get("GRAPHPATCH_NEEDS_BROWSER"):
            pytest.exit(f"test-view: {message}", returncode=2)
        print(f"test-view: NOT RUN, the pages of `graphpatch view`: {message}", file=sys.stderr)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if browser_path() is None:
        items[:] = [item for item in items if "open_page" not in getattr(item, "fixturenames", [])]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("view")


@pytest.fixture(scope="session")
def encoder(folder: Path) -> Path:
    """The sentence encoder of `make demo`, as the finished program runs it, with some of its values."""
    demo = ROOT / "build/encoder"
    demo.mkdir(parents=True, exist_ok=True)
    with FileLock(demo / "lock"):
        if not (demo / "encoder.pt").exists():
            run(sys.executable, ROOT / "tests/demo/export_encoder.py", demo)
    run(
        GRAPHPATCH,
        "run",
        "--graph",
        folder / "encoder.json",
        "--save",
        folder / "values.safetensors",
        "--probe",
        "bert.encoder.layer_0.attention.self.softmax",
        "--record",
        "bert.encoder.layer_0.output",
        "--",
        ROOT / "build/infer",
        demo / "encoder.pt",
        demo / "tokens.txt",
    )
    return folder / "encoder.json"


@pytest.fixture(scope="session")
def gpt2(folder: Path) -> Path:
    """GPT-2 in a Python script that knows nothing of us."""
    run(
        GRAPHPATCH,
        "run",
        "--graph",
        folder / "gpt2.json",
        "--",
        sys.executable,
        ROOT / "tests/programs/python/gpt2_script.py",
    )
    return folder / "gpt2.json"


@pytest.fixture(scope="session")
def scopes(folder: Path) -> Path:
    """A C++ program whose modules are scopes, by the C++ binding."""
    run(GRAPHPATCH, "run", "--graph", folder / "scopes.json", "--", ROOT / "build/cpp_scopes")
    return folder / "scopes.json"


@pytest.fixture(scope="session")
def modules(folder: Path) -> Path:
    """Two runs of a C++ program that knows nothing of us: flat, what reads a module's parameters in its scope."""
    run(
        GRAPHPATCH,
        "run",
        "--graph",
        folder / "modules.json",
        "--run-at",
        "embed.embedding",
        "--",
        ROOT / "build/flat",
        "nn",
        folder / "modules.pt",
        2,
    )
    return folder / "modules.json"


@pytest.fixture(scope="session")
def plain(folder: Path) -> Path:
    """Plain operations of a C++ program: one long run, with the making of its tensors."""
    run(GRAPHPATCH, "run", "--graph", folder / "plain.json", "--", ROOT / "build/flat", "ops", folder / "plain.pt", 3)
    return folder / "plain.json"


@pytest.fixture(scope="session")
def sweep(encoder: Path, folder: Path) -> Path:
    """A sweep over outputs of the encoder's layers, measured by a number that the program prints and by a distance."""
    demo = ROOT / "build/encoder"
    # Exit code 3: zeroing whole layers gives NaN, which equals nothing, so the program finds that its threads disagree.
    run(
        GRAPHPATCH,
        "sweep",
        "--nodes",
        "bert.encoder.layer_*.{output,intermediate.output}",
        "--nodes",
        "bert.embeddings.output",
        "--metric",
        "similarity=regex:1 and 2: similarity ([-0-9.e]+)",
        "--metric",
        "distance:output",
        "-o",
        folder / "sweep.json",
        "--",
        ROOT / "build/infer",
        demo / "encoder.pt",
        demo / "tokens.txt",
        code=3,
    )
    return folder / "sweep.json"


@pytest.fixture(params=HOSTS)
def any_host(request: pytest.FixtureRequest) -> Path:
    """A saved graph of each host in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def big(folder: Path) -> Path:
    """10,000 nodes and a few more."""
    graph = synthetic(layers=100, wide=100)
    (folder / "big.json").write_text(json.dumps({"format": 1, "graphs": [graph]}))
    return folder / "big.json"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser_path(), args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any, folder: Path) -> Iterator[Callable[..., Any]]:
    """open_page(graph, *options, hash=…): makes the page and opens it. Any request or error on the way is a failure."""
    wrong: list[str] = []
    contexts = []

    def open_it(graph: Path, *options: Any, hash: str = "", dark: bool = False) -> Any:
        html = folder / f"{graph.stem}.html"
        run(GRAPHPATCH, "view", graph, *options, "-o", html)
        context = browser.new_context(viewport={"width": 1440, "height": 860}, color_scheme="dark" if dark else "light")
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT * 1000)
        address = html.as_uri()
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda request: wrong.append(request.url) if not request.url.startswith((address, "data:")) else None,
        )
        page.goto(address + hash)
        until(page, "performance.getEntriesByName('shown').length > 0")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert wrong == []
