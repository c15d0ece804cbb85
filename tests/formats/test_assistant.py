"""`graphpatch mcp`, asked by the client of the protocol's own SDK, and by lines that no such client sends."""

import asyncio
import json
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from support import ENVIRONMENT, GRAPHPATCH, TIMEOUT, Result, wait_until

TOOLS = ["tree", "find", "code", "check", "diff", "run"]


@pytest.fixture
def graph(tmp_path: Path, run_net: Callable[..., Result]) -> Path:
    run_net("run", "--graph", tmp_path / "net.json")
    return tmp_path / "net.json"


def ask(conversation: Callable[[Any], Awaitable[None]], *options: str) -> None:
    """Has a conversation with a server of its own."""
    from mcp import Client, StdioServerParameters

    server = StdioServerParameters(command=str(GRAPHPATCH), args=["mcp", *options], env=dict(ENVIRONMENT))

    async def connect() -> None:
        async with Client(server, read_timeout_seconds=TIMEOUT) as client:
            await conversation(client)

    asyncio.run(connect())


async def say(client: Any, tool: str, **arguments: Any) -> tuple[str, bool]:
    """The text of a result, and whether it is an error."""
    result = await client.call_tool(tool, {name: jsonable(value) for name, value in arguments.items()})
    (part,) = result.content
    return part.text, bool(result.is_error)


def jsonable(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def shown(*args: Any) -> str:
    done = subprocess.run([GRAPHPATCH, *map(str, args)], capture_output=True, text=True, env=ENVIRONMENT)
    return done.stdout.rstrip()


def test_saved_graphs_are_looked_at(graph: Path) -> None:
    async def conversation(client: Any) -> None:
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == TOOLS
        assert {tool.name for tool in tools if tool.annotations.read_only_hint} == {*TOOLS} - {"run"}
        assert "check" in client.instructions

        tree, wrong = await say(client, "tree", graph=graph, path="blocks_0", depth=1)
        assert not wrong and tree == shown("show", "--fold", "--counts", "--depth", 1, graph, "blocks_0")
        assert tree.startswith("blocks_0: Graph(")
        found, wrong = await say(client, "find", graph=graph, text="cat", source=True)
        assert not wrong and found == shown("show", "--find", "cat", "--source", graph)
        assert [line.split(":")[0] for line in found.splitlines()] == ["blocks_0.cat", "blocks_1.cat"]
        found, wrong = await say(client, "find", graph=graph, text="softmax")
        assert not wrong and "nothing found" in found and "exit code 1" in found
        code, wrong = await say(client, "code", graph=graph, path="blocks_1")
        assert not wrong and "cat = aten.cat([split[1], split[0]], 1)" in code

        fits, wrong = await say(client, "check", graph=graph, patches=["blocks_*.cat[0]=zero"], probes=["output"])
        assert (fits, wrong) == ("everything fits", False)
        refused, wrong = await say(client, "check", graph=graph, patches=["blocks_0.cta=zero", "blocks_0.cat[9]=zero"])
        assert wrong and "blocks_0.cat" in refused and refused.endswith("exit code 2")

    ask(conversation)


def test_a_program_runs_with_patches(graph: Path, tmp_path: Path) -> None:
    script = tmp_path / "net.py"
    kept = tmp_path / "kept.safetensors"

    async def conversation(client: Any) -> None:
        program = [sys.executable, str(script), "1"]
        bare, wrong = await say(client, "run", command=program)
        assert not wrong
        patched, wrong = await say(
            client,
            "run",
            command=program,
            patches=["blocks_0.output=zero"],
            probes=["blocks_0.output"],
            save=kept,
            graph=tmp_path / "patched.json",
        )
        assert not wrong and "blocks_0.output" in patched
        assert patched.splitlines()[0] != bare.splitlines()[0]
        missed, wrong = await say(client, "run", command=program, patches=["blocks_7.output=zero"])
        assert wrong and missed.endswith("exit code 3") and "blocks_7.output" in missed
        refused, wrong = await say(client, "run", command=program, against=graph, patches=["blocks_7.output=zero"])
        assert wrong and refused.endswith("exit code 2")
        same, wrong = await say(client, "diff", a=graph, b=tmp_path / "patched.json", values=[str(kept), str(kept)])
        assert (same, wrong) == ("nothing differs", False)

    ask(conversation)
    from safetensors.torch import load_file

    (value,) = load_file(kept).values()
    assert value.abs().sum() == 0


def test_without_run_nothing_starts(tmp_path: Path) -> None:
    from mcp.shared.exceptions import MCPError

    async def conversation(client: Any) -> None:
        assert [tool.name for tool in (await client.list_tools()).tools] == TOOLS[:-1]
        with pytest.raises(MCPError, match="no tool"):
            await client.call_tool("run", {"command": ["touch", str(tmp_path / "made")]})

    ask(conversation, "--no-run")
    assert not (tmp_path / "made").exists()


def test_long_outputs_and_long_programs_are_bounded() -> None:
    async def conversation(client: Any) -> None:
        long, _ = await say(client, "run", command=["seq", "1", "1000000"])
        lines = long.splitlines()
        assert len(long) < 60_000 and lines[0] == "1" and "1000000" in lines
        assert any(line.startswith("…") and "bytes are left out" in line for line in lines)
        # The program begins a group member that would outlive it.
        text, wrong = await say(client, "run", command=["sh", "-c", "sleep 1000 & wait"], timeout_seconds=0.5)
        assert wrong and "more than 0.5 seconds" in text

    ask(conversation)


def test_arguments_that_are_wrong_are_told() -> None:
    async def conversation(client: Any) -> None:
        for tool, arguments, why in [
            ("tree", {}, "graph is missing"),
            ("tree", {"graph": "g", "deep": 1}, "there is graph, path, depth"),
            ("run", {"command": "ls"}, "a list of texts"),
            ("run", {"command": ["/absent/program"]}, "/absent/program"),
            ("run", {"command": ["ls"], "folder": "/absent"}, "cannot begin"),
            ("code", {"graph": "/absent.json"}, "/absent.json"),
            ("tree", {"graph": "a\0b"}, "cannot begin"),
        ]:
            text, wrong = await say(client, tool, **arguments)
            assert wrong and why in text, (tool, text)

    ask(conversation)


class Lines:
    """A server that is spoken to line by line."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([GRAPHPATCH, "mcp"], stdin=pipe, stdout=pipe, env=ENVIRONMENT, text=True)

    def send(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def close(self) -> int:
        assert self.process.stdin
        self.process.stdin.close()
        return self.process.wait(TIMEOUT)


def run_of(id: Any, *command: Any) -> str:
    params = {"name": "run", "arguments": {"command": [str(word) for word in command]}}
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})


def test_what_is_no_request_is_answered() -> None:
    server = Lines()
    for line, code in [
        ("{", -32700),
        ("[]", -32600),
        ('{"id":1}', -32600),
        ('{"jsonrpc":"2.0","id":2,"method":"resources/list"}', -32601),
        ('{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"rm"}}', -32602),
        ('{"jsonrpc":"2.0","id":3,"method":"tools/call"}', -32602),
    ]:
        server.send(line)
        assert server.receive()["error"]["code"] == code, line
    server.send('{"jsonrpc":"2.0","method":"notifications/unknown"}\n\n{"jsonrpc":"2.0","id":"p","method":"ping"}')
    assert server.receive() == {"jsonrpc": "2.0", "id": "p", "result": {}}
    server.send('{"jsonrpc":"2.0","id":4,"method":"initialize","params":{"protocolVersion":"1999-01-01"}}')
    assert server.receive()["result"]["protocolVersion"] == "2025-11-25"
    assert server.close() == 0


# A program that says its number, and then waits.
WAITING = """
    import os, sys, time
    with open(sys.argv[1], "w") as file:
        print(os.getpid(), file=file, flush=True)
    time.sleep(1000)
"""


@pytest.mark.parametrize("end", ["cancelled", "stdin closed"])
def test_a_program_ends_with_its_request(end: str, tmp_path: Path) -> None:
    script, pid = tmp_path / "waiting.py", tmp_path / "pid"
    script.write_text(textwrap.dedent(WAITING))
    server = Lines()
    server.send(run_of("one", sys.executable, script, pid))
    number = int(wait_until(lambda: pid.exists() and pid.read_text().strip(), "the program has started"))
    # Others are answered meanwhile.
    server.send('{"jsonrpc":"2.0","id":2,"method":"ping"}')
    assert server.receive()["id"] == 2
    if end == "cancelled":
        server.send('{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"one"}}')
        wait_until(lambda: not Path(f"/proc/{number}").exists(), "the program has ended")
        # There is no answer to what was cancelled: the next one is that of the next request.
        server.send(run_of(3, "echo", "hello"))
        answer = server.receive()
        assert answer["id"] == 3 and answer["result"]["content"][0]["text"].startswith("hello\n")
    assert server.close() == 0
    assert not Path(f"/proc/{number}").exists()
