"""asyncio without what it imports for other programs, in every Python that is here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lambda_deno_spawn.dev.package.interpreter import find_interpreter
from lambda_deno_spawn.errors import BuildError

SOURCE = Path(__file__).parents[2] / "src"
LEFT_OUT = {"ssl", "_ssl", "inspect", "ast", "dis", "locale"}
IMPORT = f"""
import sys
sys.path.append({str(SOURCE)!r})
from lambda_deno_spawn.deferred import unused_left_out
with unused_left_out():
    import asyncio
"""


@pytest.fixture(params=["3.11", "3.12", "3.13", "3.14"])
def interpreter(request: pytest.FixtureRequest) -> str:
    try:
        return str(find_interpreter(request.param, os.environ).path)
    except BuildError as error:
        pytest.skip(str(error))


def run(interpreter: str, code: str) -> str:
    done = subprocess.run(
        [interpreter, "-I", "-S", "-c", IMPORT + code],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_asyncio_runs_without_them(interpreter: str) -> None:
    code = """
import os
async def main():
    loop = asyncio.get_running_loop()
    reader, writer = os.pipe()
    read = asyncio.Event()
    loop.add_reader(reader, read.set)
    os.write(writer, b"1")
    async with asyncio.timeout(60):
        await read.wait()
        task = asyncio.create_task(asyncio.sleep(0, 5))
        await asyncio.wait({task})
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        stream, _ = await asyncio.open_connection(*address)
        assert await stream.read() == b""
        server.close()
        return await task
print(asyncio.run(main()), *sys.modules)
"""
    result, *modules = run(interpreter, code).split()
    assert result == "5"
    assert "asyncio" in modules
    assert LEFT_OUT & set(modules) == set()


def test_afterwards_each_can_be_imported_and_is_used(interpreter: str) -> None:
    code = """
async def work(): pass
assert asyncio.iscoroutinefunction(work) and not asyncio.iscoroutinefunction(print)
import inspect, locale, ssl
assert inspect.signature(work) and locale.getlocale and ssl.SSLContext
assert type(inspect) is type(sys)
loop = asyncio.new_event_loop()
loop.set_debug(True)
loop.call_soon(print, "called")
loop.call_soon(loop.stop)
loop.run_forever()
loop.close()
"""
    assert run(interpreter, code) == "called\n"


def test_one_that_is_used_inside_is_imported_there(interpreter: str) -> None:
    code = """
for name in [name for name in sys.modules if name.startswith("asyncio")]:
    del sys.modules[name]
with unused_left_out():
    import inspect
    assert inspect.signature(print)
    from inspect import isfunction
    assert isfunction(unused_left_out)
    import asyncio
    assert asyncio.coroutines.inspect.signature is inspect.signature
import inspect as afterwards
assert type(afterwards) is type(sys)
"""
    run(interpreter, code)


def test_modules_that_are_there_already_stay(interpreter: str) -> None:
    before = f"import sys, inspect, ssl; there = inspect, ssl\n{IMPORT}"
    code = """
assert (sys.modules["inspect"], sys.modules["ssl"]) == there
assert asyncio.coroutines.inspect is there[0] and asyncio.sslproto.ssl is there[1]
"""
    done = subprocess.run([interpreter, "-I", "-S", "-c", before + code], check=False)
    assert done.returncode == 0


def test_this_interpreter_is_among_them() -> None:
    version = ".".join(map(str, sys.version_info[:2]))
    assert find_interpreter(version, os.environ).version == version
