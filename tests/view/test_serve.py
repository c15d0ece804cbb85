"""`graphpatch serve`: who gets the page, what is on it, and that a running program feeds it."""

import http.client
import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pages import ENVIRONMENT, GRAPHPATCH, TIMEOUT, run, synthetic, until

NET = """
    import sys, torch
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.more = torch.nn.Linear(2, 2), False
        def forward(self, x):
            return self.fc(x).relu() if self.more else self.fc(x)
    net = Net()
    net(torch.ones(2))
    print("ready", flush=True)
    net.more = True
    for line in sys.stdin:
        net(torch.ones(2))
        print("ran", flush=True)
"""


class Served:
    """A `graphpatch serve` that runs."""

    def __init__(self, *args: Any, environment: dict[str, str] = ENVIRONMENT) -> None:
        pipe = subprocess.PIPE
        command = [str(arg) for arg in (GRAPHPATCH, "serve", *args)]
        self.process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self.process.stdout
        self.address = self.process.stdout.readline().strip()
        assert self.address.startswith("http://127.0.0.1:"), self.stop()
        self.port = int(self.address.split(":")[2].split("/")[0])
        self.path = self.address.removeprefix(f"http://127.0.0.1:{self.port}")

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()

    def stop(self) -> str:
        self.process.send_signal(signal.SIGINT)
        _, stderr = self.process.communicate(timeout=TIMEOUT)
        return stderr


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(*args: Any, **kwargs: Any) -> Served:
        started.append(Served(*args, **kwargs))
        return started[-1]

    yield start
    for served in started:
        if served.process.poll() is None:
            served.stop()


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    (tmp_path / "g.json").write_text(json.dumps({"format": 1, "graphs": [synthetic(layers=2, wide=10)]}))
    return tmp_path / "g.json"


def listening() -> dict[int, str]:
    """The addresses, in hexadecimal digits, of all sockets that listen, by port."""
    lines = [
        line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]
    ]
    return {int(line[1].split(":")[1], 16): line[1].split(":")[0] for line in lines if line[3] == "0A"}


def test_only_those_who_know_the_address_get_the_page(graph: Path, serve: Callable[..., Served]) -> None:
    served = serve(graph)
    assert listening()[served.port] == "0100007F"  # 127.0.0.1, and no other address of this machine
    status, page, headers = served.get(served.path)
    assert status == 200 and headers["content-type"] == "text/html; charset=utf-8"
    run(GRAPHPATCH, "view", graph, "-o", graph.with_suffix(".html"))
    assert page == graph.with_suffix(".html").read_text()
    assert headers["cache-control"] == "no-store" and headers["referrer-policy"] == "no-referrer"
    assert served.get(served.path, Host=f"localhost:{served.port}")[0] == 200
    assert served.get(served.path, "HEAD")[1] == ""
    token = served.path.strip("/")
    for path in ["/", f"/{token[:-1]}/", f"/{token}x/", f"/{'0' * 32}/", "//", f"/?{token}", "/" + token.upper() + "/"]:
        status, text, _ = served.get(path)
        assert status == 403 and token not in text and "layers_0" not in text, path
    for host in ["example.org", f"example.org:{served.port}", "127.0.0.1", f"127.0.0.1:{served.port}.example.org", ""]:
        assert served.get(served.path, Host=host)[0] == 403, host
    assert served.get(f"{served.path}../etc/passwd")[0] == 404
    assert served.get(served.path, "POST")[0] == 405
    other = serve(graph)
    assert other.path != served.path and other.port != served.port


def test_the_page_is_that_of_the_file_as_it_is_now(graph: Path, serve: Callable[..., Served]) -> None:
    served = serve(graph, "layers_1")
    assert '"start":"layers_1"' in served.get(served.path)[1]
    graph.write_text(json.dumps({"format": 1, "graphs": [synthetic(layers=3, wide=10)]}))
    assert "layers_2.add_0" in served.get(served.path)[1]
    graph.write_text("{")
    status, text, _ = served.get(served.path)
    assert status == 500 and "g.json" in text
    graph.unlink()
    assert served.get(served.path)[0] == 500
    assert "g.json is served there" in served.stop()


def test_what_is_refused(graph: Path, serve: Callable[..., Served]) -> None:
    assert "absent.json" in run(GRAPHPATCH, "serve", "absent.json", code=2).stderr
    assert "nearest" in run(GRAPHPATCH, "serve", graph, "layers_7", code=2).stderr
    assert "does not listen" in run(GRAPHPATCH, "serve", "1", code=2).stderr
    served = serve(graph)
    taken = run(GRAPHPATCH, "serve", graph, "--port", served.port, code=2).stderr
    assert f"127.0.0.1:{served.port}: cannot listen" in taken


def test_a_running_program_feeds_the_page(tmp_path: Path, serve: Callable[..., Served]) -> None:
    script = tmp_path / "net.py"
    script.write_text(textwrap.dedent(NET))
    environment = {**ENVIRONMENT, "XDG_RUNTIME_DIR": str(tmp_path)}
    program = subprocess.Popen(
        [GRAPHPATCH, "run", "--live", "--", sys.executable, script],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdin and program.stdout
    try:
        assert program.stdout.readline() == "ready\n"
        (socket,) = (tmp_path / "graphpatch").glob("*.sock")
        served = serve(socket.stem, environment=environment)
        assert '"path":"relu"' not in served.get(served.path)[1]
        program.stdin.write("\n")
        program.stdin.flush()
        assert program.stdout.readline() == "ran\n"
        page = served.get(served.path)[1]
        assert '"path":"relu"' in page and f"process {socket.stem}" in page
    finally:
        program.stdin.close()
        program.wait(TIMEOUT)
    # The page of a program that has ended says so.
    status, text, _ = served.get(served.path)
    assert status == 500 and "has hung up" in text


def test_a_browser_shows_it(graph: Path, serve: Callable[..., Served], browser: Any) -> None:
    served = serve(graph)
    page = browser.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(served.address + "#layers_1.add_3")
    until(page, "performance.getEntriesByName('shown').length > 0")
    assert page.locator("#path").inner_text() == "layers_1.add_3"
    page.reload()
    until(page, "performance.getEntriesByName('shown').length > 0")
    assert page.locator("#path").inner_text() == "layers_1.add_3"
    page.close()
    assert wrong == []
