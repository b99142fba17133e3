"""``call``: requests to function URLs, of `dev` and of AWS."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.fixtures.command import run_command
from tests.fixtures.ports import free_port
from tests.integration.dev_server import DevServer, write

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

CODE = """
export default {
  async fetch(request: Request) {
    const { pathname, search } = new URL(request.url);
    if (pathname === "/missing") return new Response("no", { status: 404 });
    return Response.json({
      method: request.method, pathname, search, body: await request.text(),
      type: request.headers.get("content-type"), x: request.headers.get("x-a"),
    }, { headers: { "x-b": "c" } });
  },
};
"""
CUT = """
export const handler = awslambda.streamifyResponse(async (_: any, out: any) => {
  out.write("half");
  await new Promise((done) => setTimeout(done, 200));
  throw new Error("late");
});
"""


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServer]:
    folder = write(
        tmp_path_factory.mktemp("functions"),
        {"api/function.ts": CODE, "cut/function.ts": CUT},
    )
    with DevServer(folder, "--no-watch", "--timeout", "60") as server:
        yield server


def call(
    dev: DevServer, *arguments: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    port = str(httpx.URL(dev.url).port)
    return run_command("call", "--port", port, *arguments, stdin=stdin)


@pytest.mark.deno
def test_a_call_prints_the_body_and_the_status(dev: DevServer) -> None:
    done = call(
        dev, "api", "/a?b=c", "-X", "put", "-d", "-", "-H", "X-A: 1", "-i", stdin=b"{}"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        b'{"method":"PUT","pathname":"/a","search":"?b=c","body":"{}",'
        b'"type":"application/json","x":"1"}'
    )
    lines = done.stderr.decode().splitlines()
    assert lines[0] == "HTTP 200"
    assert "x-b: c" in lines


@pytest.mark.deno
def test_an_error_status_and_a_broken_stream_are_failures(dev: DevServer) -> None:
    done = call(dev, "api", "missing")
    assert (done.returncode, done.stdout, done.stderr) == (1, b"no", b"HTTP 404\n")
    done = call(dev, "cut")
    assert (done.returncode, done.stdout) == (1, b"half")
    assert b"The response broke off" in done.stderr
    done = call(dev, "ecco")
    assert done.returncode == 1
    assert b"There is no function 'ecco'" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["f", "/", "-H", "no colon"], 2, "expected NAME:VALUE"),
        (["f", "/", "-d", "@/none/x"], 2, "Cannot read the file '/none/x'"),
        (["f", "/", "--region", "eu-west-1"], 2, "--region without --remote"),
        (["f", "/", "--remote", "--port", "1"], 2, "--port with --remote"),
        (["no/such", "/"], 2, "Cannot find function 'no/such'"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: list[str], code: int, message: str
) -> None:
    done = run_command("call", *arguments)
    assert (done.returncode, done.stdout) == (code, b"")
    assert message in done.stderr.decode()


def test_without_a_server_it_says_how_to_start_one() -> None:
    port = str(free_port())
    done = run_command("call", "f", "/", "--port", port, environ=dict(os.environ))
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"start `lambda-deno-spawn dev`" in done.stderr
