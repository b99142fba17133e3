"""The modules that a cold start imports, by name: before Deno runs, and in all.

Also those that a command imports. Names, not times: the modules decide how long a start
takes, on any machine.
A module that has to be imported so early is added here, once its cost was measured
(docs/performance.md).
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lambda_deno_spawn.dev.cli.app import AllCommands, LayerCommands
from lambda_deno_spawn.dev.local.runtime import isolated_python
from lambda_deno_spawn.dev.package.interpreter import find_interpreter
from lambda_deno_spawn.errors import BuildError

if TYPE_CHECKING:
    from tests.doubles import FakeRuntimeApi
    from tests.integration.conftest import MakeRuntime

pytestmark = pytest.mark.as_lambda

OURS = {
    "lambda_deno_spawn",
    "lambda_deno_spawn.launch",
    "lambda_deno_spawn.processes",
    "lambda_deno_spawn.protocol",
    "lambda_deno_spawn.worker",
    "lambda_deno_spawn.bootstrap",
    "lambda_deno_spawn.config",
    "lambda_deno_spawn.launch.addresses",
    "lambda_deno_spawn.launch.binary",
    "lambda_deno_spawn.launch.command",
    "lambda_deno_spawn.launch.deno_json",
    "lambda_deno_spawn.launch.entry",
    "lambda_deno_spawn.launch.files",
    "lambda_deno_spawn.launch.handler",
    "lambda_deno_spawn.launch.variables",
    "lambda_deno_spawn.processes.descendants",
    "lambda_deno_spawn.early",
    "lambda_deno_spawn.errors",
    "lambda_deno_spawn.limits",
    "lambda_deno_spawn.protocol.hello",
    "lambda_deno_spawn.launch.module_cache",
    "lambda_deno_spawn.permissions",
    "lambda_deno_spawn.processes.launch",
    "lambda_deno_spawn.records",
    "lambda_deno_spawn.worker.start",
    "lambda_deno_spawn.processes.state",
}
# Names before the first dot. Modules that begin with _ belong to one of these.
STANDARD = {
    "errno", "fcntl", "gc", "genericpath", "itertools", "os", "posixpath", "stat",
}  # fmt: skip
# What no supervisor needs that serves events with the default settings: decision 0034.
UNUSED = {
    "ssl", "inspect", "ast", "dis", "locale", "dataclasses", "datetime", "uuid",
    "urllib", "ipaddress", "platform", "pathlib", "base64", "shlex", "h11", "orjson",
}  # fmt: skip
# What only some commands need, and takes tenths of a second to import.
SLOW = {
    "boto3", "botocore", "elftools", "httpx", "psutil", "rich", "starlette", "uvicorn",
    "watchfiles",
}  # fmt: skip
COMMANDS = "lambda_deno_spawn.dev.cli."
# Prefixed to the program of the runtime.
AT_EXIT = (
    "import atexit, sys; "
    "atexit.register(lambda: print('imported', *sys.modules, file=sys.stderr)); "
)
REPORT = (
    "before = set(sys.modules); import lambda_deno_spawn.bootstrap; "
    "print(*(set(sys.modules) - before))"
)


def test_bootstrap_imports_nothing_beyond_its_budget() -> None:
    found = imported_by_bootstrap()
    budget = OURS | STANDARD
    assert sorted(found - budget) == [], "imported, but not in the budget"


def test_budget_holds_nothing_that_bootstrap_no_longer_imports() -> None:
    budget = OURS | STANDARD
    assert sorted(budget - imported_by_bootstrap()) == [], "in the budget for nothing"


@pytest.mark.deno
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
async def test_events_are_served_without_what_is_not_used(
    make_runtime: MakeRuntime, api: FakeRuntimeApi, version: str
) -> None:
    try:
        python = find_interpreter(version, os.environ).path
    except BuildError as error:
        pytest.skip(str(error))
    # Its arguments are an interpreter, -I, -S, -c and a program.
    wrapper = f'exec {shlex.quote(str(python))} -I -S -c {shlex.quote(AT_EXIT)}"$5"'
    source = "export const handler = (event: unknown) => event;"
    runtime = make_runtime({"function.ts": source})
    runtime.wrapper = wrapper
    async with runtime:
        for number in range(2):
            assert (await api.invoke({"n": number})).json() == {"n": number}
        await api.wait_for_next()
        assert await runtime.stop() == 0
        imported = (await runtime.logged("imported ")).split()
    assert "asyncio" in imported
    assert sorted(UNUSED & set(imported)) == []


@pytest.mark.parametrize(
    ("arguments", "commands"),
    [
        (["--version"], set()),
        (["build", "no-such-folder"], {"build"}),
        (["invoke", "no-such-folder"], {"invoke"}),
        (["layer", "list", "--help"], {"publish"}),
    ],
    ids=" ".join,
)
def test_command_imports_neither_other_commands_nor_what_is_slow(
    arguments: list[str], commands: set[str]
) -> None:
    program = f"{AT_EXIT}from lambda_deno_spawn.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    imported = set(done.stderr.rpartition("imported ")[2].split())
    assert "lambda_deno_spawn.dev.cli.app" in imported
    assert sorted(SLOW & imported) == []
    places = [*AllCommands.places.values(), *LayerCommands.places.values()]
    modules = {place.partition(":")[0] for place in places}
    assert {name for name in modules if COMMANDS + name in imported} - {
        "events",  # it also reads the event for others
    } == commands


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            "ModuleNotFoundError('No module named httpx', name='httpx')",
            1,
            "Cannot start lambda-deno-spawn: the package 'httpx' is missing",
        ),
        ("KeyboardInterrupt", 130, ""),
    ],
)
def test_error_while_a_command_is_imported_is_told(
    error: str, code: int, said: str
) -> None:
    program = f"""
import sys
from lambda_deno_spawn.__main__ import main
class Finder:
    def find_spec(name, path, target=None):
        if name == {COMMANDS + "build"!r}:
            raise {error}
sys.meta_path.insert(0, Finder)
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, "build"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr[: len(said)]) == (code, said)


def imported_by_bootstrap() -> set[str]:
    done = subprocess.run(
        isolated_python(REPORT),
        check=True,
        capture_output=True,
        text=True,
    )
    names = set(done.stdout.split())
    packages = {name.partition(".")[0] for name in names if not is_ours(name)}
    return {name for name in names if is_ours(name)} | {
        name for name in packages if not name.startswith("_")
    }


def is_ours(name: str) -> bool:
    return name.partition(".")[0] == "lambda_deno_spawn"
