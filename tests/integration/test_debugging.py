"""A debugger at the function's process, over the inspector's protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.fixtures.command import run_command
from tests.fixtures.inspector import LIMIT_S, SourceMap, attached
from tests.fixtures.ports import free_port
from tests.integration.harness import marked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.deno

# Types take lines that the JavaScript does not have.
SOURCE = """\
interface Greeting {
  name: string;
  greeting?: string;
}

type Unused = { a: number; b: string };

const loaded: string = "loaded";

export function handler(event: Greeting): Greeting {
  const name: string = event.name;
  const greeting: string = `Hello, ${name}, ${loaded}`;
  return { name, greeting };
}
"""
SCRIPT_LINE = 3  # `const greeting` without the types, from 0
MARK_VARIABLE = "LDS_DEBUGGING_TEST"


@pytest.fixture
def port() -> int:
    """A port for the debugger."""
    return free_port()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A function in TypeScript."""
    folder = tmp_path / "greeter"
    folder.mkdir()
    (folder / "function.ts").write_text(SOURCE)
    return folder


@asynccontextmanager
async def invoking(
    project: Path, port: int, *arguments: str, **environ: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run ``invoke`` with a debugger; nothing of it may be left in the end."""
    mark = uuid.uuid4().hex
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lambda_deno_spawn", "invoke", project,
        "--event", '{"name":"Ada"}', "--inspect-port", str(port), *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environ, MARK_VARIABLE: mark},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.communicate()
        assert marked(f"{MARK_VARIABLE}={mark}") == set()


async def test_breakpoint_in_typescript_pauses_there_and_the_result_is_right(
    project: Path, port: int
) -> None:
    # The timeout is shorter than the start of a process.
    options = ("--inspect", "--timeout", "0.01", "--env", "LAMBDA_DENO_START=fork")
    async with invoking(project, port, *options) as process, attached(port) as debugger:
        # As a debugger does that has read the source map before.
        found = await debugger.call(
            "Debugger.setBreakpointByUrl",
            url=f"file://{project}/function.ts",
            lineNumber=SCRIPT_LINE,
        )
        await debugger.run()
        script = await debugger.script("/function.ts")
        sources = SourceMap(script["sourceMapURL"])
        assert sources.source == script["url"]
        assert sources.text == SOURCE
        paused = await debugger.event("Debugger.paused")
        assert found["breakpointId"] in paused["hitBreakpoints"]
        frame = paused["callFrames"][0]
        assert frame["functionName"] == "handler"
        here = sources.source_line(frame["location"])
        assert here.startswith("const greeting: string")
        assert await debugger.evaluate(paused, "name + event.name") == "AdaAda"
        assert await debugger.evaluate(paused, "loaded") == "loaded"
        await debugger.resume()
        async with asyncio.timeout(LIMIT_S):
            out, log = await process.communicate()
    assert json.loads(out) == {"name": "Ada", "greeting": "Hello, Ada, loaded"}
    assert process.returncode == 0
    text = log.decode()
    assert f"Waiting for a debugger at 127.0.0.1:{port}" in text
    assert text.count("begins as a `deno run`") == 1
    assert "timed out" not in text


@pytest.mark.parametrize(
    "settings",
    [(), ("--env", "LAMBDA_DENO_STRATEGY=server")],
    ids=["fresh", "server"],
)
async def test_break_pauses_at_the_first_line_of_the_function_s_file(
    project: Path, port: int, settings: tuple[str, ...]
) -> None:
    async with (
        invoking(project, port, "--inspect-brk", *settings) as process,
        attached(port) as debugger,
    ):
        await debugger.run()
        script = await debugger.script("/function.ts")
        paused = await debugger.event("Debugger.paused")
        location = paused["callFrames"][0]["location"]
        assert location["scriptId"] == script["scriptId"]
        sources = SourceMap(script["sourceMapURL"])
        assert sources.source_line(location) == 'const loaded: string = "loaded";'
        line, column = sources.script_place("return { name")
        await debugger.call(
            "Debugger.setBreakpointByUrl",
            url=script["url"],
            lineNumber=line,
            columnNumber=column,
        )
        await debugger.resume()
        paused = await debugger.event("Debugger.paused")
        location = paused["callFrames"][0]["location"]
        assert sources.source_line(location) == "return { name, greeting };"
        await debugger.resume()
        async with asyncio.timeout(LIMIT_S):
            out, log = await process.communicate()
    assert json.loads(out)["greeting"] == "Hello, Ada, loaded"
    assert "panicked" not in log.decode()


async def test_break_pauses_without_the_permission_for_an_inspector(
    project: Path, port: int
) -> None:
    options = ("--inspect-brk", "--env", "LAMBDA_DENO_PERMISSIONS=none")
    async with invoking(project, port, *options) as process, attached(port) as debugger:
        await debugger.run()
        await debugger.event("Debugger.paused")
        await debugger.resume()
        async with asyncio.timeout(LIMIT_S):
            out, _ = await process.communicate()
    assert json.loads(out)["name"] == "Ada"


async def test_ctrl_c_ends_the_wait_for_a_debugger(project: Path, port: int) -> None:
    async with invoking(project, port, "--inspect") as process, attached(port):
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(LIMIT_S):
            await process.communicate()
        assert process.returncode == 130


def test_a_taken_port_is_a_usage_error_before_anything_starts(project: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        done = run_command(
            "invoke", project, "--inspect", "--inspect-port", str(number)
        )
    assert done.returncode == 2
    assert done.stderr.decode().startswith(f"Cannot use port {number} for the debugger")
    assert b"START" not in done.stderr


def test_a_port_without_a_debugger_is_a_usage_error(project: Path) -> None:
    done = run_command("invoke", project, "--inspect-port", "9229")
    assert done.returncode == 2
    assert b"add --inspect" in done.stderr


async def test_dev_has_a_debugger_attach_to_the_process_of_each_event(
    project: Path, port: int
) -> None:
    mark = uuid.uuid4().hex
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lambda_deno_spawn", "dev", project, "--port", "0",
        "--inspect", "--inspect-port", str(port), "--timeout", "0.01", "-o", "json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, MARK_VARIABLE: mark}, limit=2**20,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        url = json.loads(await process.stdout.readline())["url"]
        draining = asyncio.create_task(process.stdout.read())
        async with httpx.AsyncClient(base_url=url, timeout=LIMIT_S) as client:
            earlier: set[str] = set()
            for name in ("Ada", "Grace"):  # a process each, at the same port
                path = "/2015-03-31/functions/greeter/invocations"
                sent = asyncio.create_task(client.post(path, json={"name": name}))
                async with attached(port, earlier) as debugger:
                    await debugger.call(
                        "Debugger.setBreakpointByUrl",
                        url=f"file://{project}/function.ts",
                        lineNumber=SCRIPT_LINE,
                    )
                    await debugger.run()
                    paused = await debugger.event("Debugger.paused")
                    assert await debugger.evaluate(paused, "event.name") == name
                    await debugger.resume()
                    response = await sent
                assert response.json()["greeting"] == f"Hello, {name}, loaded"
    finally:
        process.terminate()
        async with asyncio.timeout(LIMIT_S):
            await process.wait()
    await draining
    assert marked(f"{MARK_VARIABLE}={mark}") == set()
