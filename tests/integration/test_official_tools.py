"""SDKs that come with tools of their own: these drive handlers in the real runtime.

The durable execution SDK is driven by the local runner of its testing package, the
Model Context Protocol's SDK by its client. docs/compatibility.md lists the versions.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fixtures.packages import download
from tests.integration.harness import deno_binary
from tests.integration.test_http import v2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = [pytest.mark.as_lambda, pytest.mark.deno]

FIXTURES = Path(__file__).parents[1] / "fixtures"
LIMIT_S = 90.0


class Tool:
    """A program that says a line of JSON for each of its calls, and for its result."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def hear(self) -> dict[str, Any]:
        """Return what it says next."""
        assert self._process.stdout is not None
        async with asyncio.timeout(LIMIT_S):
            line = await self._process.stdout.readline()
        assert line, "it has ended"
        said: dict[str, Any] = json.loads(line)
        return said

    def answer(self, number: int, answer: object) -> None:
        """Answer one of its calls."""
        assert self._process.stdin is not None
        line = json.dumps({"number": number, "answer": answer}) + "\n"
        self._process.stdin.write(line.encode())


@asynccontextmanager
async def running(module: Path, *arguments: str) -> AsyncIterator[Tool]:
    """Run a program that is told what to do by our test."""
    environ = {**os.environ, "DENO_DIR": download(module.parent), "NO_COLOR": "1"}
    process = await asyncio.create_subprocess_exec(
        deno_binary(), "run", "-A", "--quiet", "--frozen", "--cached-only",
        module.name, *arguments,
        cwd=module.parent,
        env=environ,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )  # fmt: skip
    try:
        yield Tool(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("way", "order"),
    [("fresh", "7"), ("server", "8"), ("fresh", "")],
    indirect=["way"],
)
async def test_a_durable_execution_is_run_by_the_sdk_s_own_runner(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, way: str, order: str
) -> None:
    folder = FIXTURES / "durable"
    async with running(folder / "runner.js", order) as runner:
        said = await runner.hear()
        async with make_runtime(
            folder,
            "order.handler",
            DENO_DIR=download(folder),
            AWS_ENDPOINT_URL_LAMBDA=said["endpoint"],
            AWS_REGION="eu-central-1",
            AWS_ACCESS_KEY_ID="local",
            AWS_SECRET_ACCESS_KEY="local",
        ) as runtime:
            while "what" in (said := await runner.hear()):
                answer = await api.invoke(said["what"], timeout_s=30.0)
                if answer.call == "error":
                    failure = {"error": answer.json()["errorMessage"]}
                    runner.answer(said["number"], failure)
                else:
                    runner.answer(said["number"], {"result": answer.json()})
            await api.wait_for_next()
            log = runtime.log
    if not order:
        assert said["status"] == "FAILED"
        assert said["error"]["errorMessage"] == "an order needs an id"
        return
    assert said["status"] == "SUCCEEDED", said
    result = said["result"]
    first, last = result.pop("processes")
    assert result == {"id": order, "approval": "granted", "tried": 1, "cents": 600}
    # It was suspended for the pause at least, and replayed.
    assert said["invocations"] >= 2
    if way == "fresh":
        assert first["pid"] != last["pid"]
        assert (first["seen"], last["seen"]) == (1, 1)
    else:
        assert first["pid"] == last["pid"]
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    priced = [line for line in lines if "priced" in line.get("message", "")]
    assert len(priced) == 1, "replays do not log again"
    assert priced[0]["level"] == "INFO"


@pytest.mark.parametrize(
    ("server", "way"),
    [("fetch", "fresh"), ("express", "fresh"), ("express", "server")],
    indirect=["way"],
)
async def test_an_mcp_server_answers_the_sdk_s_own_client(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, server: str
) -> None:
    folder = FIXTURES / "mcp"
    export = "default" if server == "fetch" else "handler"
    async with (
        make_runtime(folder, f"{server}.{export}", DENO_DIR=download(folder)),
        running(folder / "client.js") as client,
    ):
        while "what" in (said := await client.hear()):
            asked = said["what"]
            event = v2(
                "/mcp",
                asked["method"],
                asked["body"].encode() or None,
                headers={**asked["headers"], "host": "abc.lambda-url.example"},
            )
            result = (await api.invoke(event)).json()
            client.answer(
                said["number"],
                {
                    "status": result["statusCode"],
                    "headers": result["headers"],
                    "body": result.get("body", ""),
                },
            )
    assert said == {
        "server": "tools",
        "tools": ["add", "count"],
        "sum": [{"type": "text", "text": "42"}],
        "counted": [{"type": "text", "text": "counted"}],
        "progress": [1, 2, 3],
        "isWrong": True,
        "contents": [{"uri": "text://greeting", "text": "Hello"}],
    }
