"""Starts the runtimes to compare: ours in each mode, and the baseline.

Knows the environment that Lambda gives a runtime, and how to start each contestant. All
have the same handler, the same Runtime API and the same kind of sandbox. Does not know
what is measured.
"""

from __future__ import annotations

import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from deno import find_deno_bin

from lambda_deno_spawn.dev.bench.contestant import ContestantError, running
from lambda_deno_spawn.dev.bench.sandbox import open_sandbox
from lambda_deno_spawn.dev.bench.ways import SETTINGS as WAY_SETTINGS
from lambda_deno_spawn.dev.bench.ways import Way, poller_source
from lambda_deno_spawn.dev.local.runtime import bootstrap_command
from lambda_deno_spawn.launch.handler import find_handler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lambda_deno_spawn.dev.bench.contestant import Contestant
    from lambda_deno_spawn.dev.bench.runtime_api import Response
    from lambda_deno_spawn.dev.bench.sandbox import Sandbox

HERE = Path(__file__).parent
HANDLERS = HERE / "handlers"
DENO = find_deno_bin()
POLLER = Way.POLLER.value  # the others are named after their warm mode or their way
SETTINGS = {
    way.value: {**WAY_SETTINGS[way], "LAMBDA_DENO_WARM": "ready"}
    for way in (Way.FORK, Way.REUSE, Way.SERVER)
}
WARM_UP_EVENTS = 20  # fills the code caches, and V8 compiles hot functions


async def invoke(contestant: Contestant, n: int) -> Response:
    """Deliver event number ``n`` and check that it was echoed.

    Raises:
        ContestantError: No response or a wrong one; the message has the end of the log.
    """
    response = await contestant.send(b'{"n":%d}' % n)
    if response.body != b'{"ok":true,"n":%d}' % n:
        raise contestant.error(f"responded {response.body[:500]!r}")
    return response


@asynccontextmanager
async def start(
    name: str,
    scratch: Path,
    *,
    freezes: bool,
    warms_up: bool = True,
    sandbox: Sandbox | None = None,
    handler: str = "echo.handler",
    warm_up_event: bytes | None = None,
) -> AsyncIterator[Contestant]:
    """Start a contestant, wait for its first ``next``, warm it up, and stop it on exit.

    Args:
        name: ``ready``, ``background``, ``off``, ``fork``, ``reuse``, ``server`` or
            ``poller``.
        scratch: Folder for its temporary files and its log.
        freezes: Whether the Runtime API freezes it while it waits.
        warms_up: False: return directly after the start.
        sandbox: Closed on exit; None: the best one for this machine.
        handler: ``file.export`` in ``bench/handlers``.
        warm_up_event: For handlers other than ``echo``.
    """
    async with running(
        name,
        command(name, scratch, handler),
        lambda address: {**environ(name, scratch, address), "_HANDLER": handler},
        scratch / f"{name}.log",
        sandbox or open_sandbox(name),
        freezes=freezes,
    ) as contestant:
        if warms_up:
            await contestant.first_poll()
            for n in range(WARM_UP_EVENTS):
                if warm_up_event is None:
                    await invoke(contestant, n)
                else:
                    await contestant.send(warm_up_event)
        yield contestant


async def forks(scratch: Path) -> tuple[str, ...]:
    """Return the name of the forking contestant, none if it cannot run here."""
    name = Way.FORK.value
    try:
        async with start(name, scratch, freezes=False, warms_up=False) as contestant:
            await contestant.first_poll()
    except ContestantError as error:
        print(f"without {name}: {error.reason}", file=sys.stderr)
        return ()
    return (name,)


def command(name: str, scratch: Path, handler: str) -> list[str]:
    """Return the command line of a contestant."""
    if name != POLLER:
        return bootstrap_command()
    entry = scratch / f"{handler}.poller.mjs"
    entry.write_text(poller_source(find_handler(str(HANDLERS), handler)))
    return [DENO, "run", "-A", "--no-config", "--quiet", str(entry)]


def environ(name: str, scratch: Path, address: str) -> dict[str, str]:
    """Return the variables that Lambda sets, and the warm mode of our runtime."""
    variables = {
        **deno_environ(scratch),
        "_HANDLER": "echo.handler",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
        "AWS_LAMBDA_FUNCTION_NAME": "bench",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/bench",
        "AWS_LAMBDA_LOG_STREAM_NAME": "bench",
        "AWS_LAMBDA_RUNTIME_API": address,
        "AWS_REGION": "us-east-1",
        "LAMBDA_TASK_ROOT": str(HANDLERS),
    }
    if name == POLLER:
        return variables
    exec_only = {"LAMBDA_DENO_START": "exec", "LAMBDA_DENO_WARM": name}
    chosen = SETTINGS.get(name, exec_only)
    return {**variables, "LAMBDA_DENO_BIN": DENO, **chosen}


def deno_environ(scratch: Path) -> dict[str, str]:
    """Return the variables of all Deno processes, including bare ones."""
    temp = scratch / "tmp"
    temp.mkdir(exist_ok=True)
    return {
        "DENO_DIR": str(scratch / "deno"),
        "DENO_NO_UPDATE_CHECK": "1",
        "HOME": str(scratch),
        "LANG": "en_US.UTF-8",
        "PATH": os.environ.get("PATH", os.defpath),
        "TMPDIR": str(temp),
    }
