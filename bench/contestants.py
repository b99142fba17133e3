"""Starts the runtimes to compare: ours in each mode, and the baseline.

Knows the environment that Lambda gives a runtime, and how to start each contestant. All
have the same handler, the same Runtime API and the same kind of sandbox. Does not know
what is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deno import find_deno_bin

from bench.runtime_api import RuntimeApi
from bench.sandbox import open_sandbox
from lambda_deno_spawn.dev.local.runtime import bootstrap_command

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator

    from bench.runtime_api import Response
    from bench.sandbox import Sandbox

HERE = Path(__file__).parent
HANDLERS = HERE / "handlers"
DENO = find_deno_bin()
POLLER = "poller"  # the others are named after their warm mode, or after these settings
SETTINGS = {
    "reuse": {"LAMBDA_DENO_WARM": "ready", "LAMBDA_DENO_MAX_INVOCATIONS": "1000000"},
    "server": {"LAMBDA_DENO_WARM": "ready", "LAMBDA_DENO_STRATEGY": "server"},
}
WARM_UP_EVENTS = 20  # fills the code caches, and V8 compiles hot functions
LOG_TAIL_BYTES = 2000


@dataclass(frozen=True, slots=True)
class Contestant:
    """A runtime that waits for its next event.

    Attributes:
        name: ``ready``, ``background``, ``off``, ``reuse``, ``server`` or ``poller``.
        process: The process that Lambda would start.
        sandbox: Contains that process and all its descendants.
        started_at_s: Time just before its start (``time.perf_counter``).
    """

    name: str
    process: subprocess.Popen[bytes]
    sandbox: Sandbox
    started_at_s: float
    _api: RuntimeApi
    _log: Path

    async def invoke(self, n: int) -> Response:
        """Deliver event number ``n`` and check that it was echoed.

        Raises:
            RuntimeError: No response or a wrong one; the message has the end of the
                log.
        """
        response = await self.send(b'{"n":%d}' % n)
        if response.body != b'{"ok":true,"n":%d}' % n:
            raise RuntimeError(self._complaint(f"responded {response.body[:500]!r}"))
        return response

    async def send(self, event: bytes) -> Response:
        """Deliver an event.

        Raises:
            RuntimeError: No response, or an error; the message has the end of the log.
        """
        try:
            response = await self._api.invoke(event)
        except TimeoutError:
            raise RuntimeError(self._complaint("did not respond")) from None
        if response.is_error:
            raise RuntimeError(self._complaint(f"responded {response.body[:500]!r}"))
        return response

    async def first_poll(self) -> None:
        """Return after the runtime has called ``next`` for the first time.

        Raises:
            RuntimeError: It exited instead.
        """
        poll = asyncio.ensure_future(self._api.polled())
        while not poll.done():
            await asyncio.wait({poll}, timeout=0.1)
            if self.process.poll() is not None:
                poll.cancel()
                raise RuntimeError(self._complaint(f"exited {self.process.returncode}"))
        await poll

    def _complaint(self, what: str) -> str:
        tail = self._log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
        return f"Runtime {self.name!r} {what}; its log ends with:\n{tail}"


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
        name: ``ready``, ``background``, ``off``, ``reuse``, ``server`` or ``poller``.
        scratch: Folder for its temporary files and its log.
        freezes: Whether the Runtime API freezes it while it waits.
        warms_up: False: return directly after the start.
        sandbox: Closed on exit; None: the best one for this machine.
        handler: ``file.export`` in ``bench/handlers``.
        warm_up_event: For handlers other than ``echo``.
    """
    sandbox = sandbox or open_sandbox(name)
    log = scratch / f"{name}.log"
    async with RuntimeApi(sandbox if freezes else None) as api:
        with log.open("wb") as output, contextlib.closing(sandbox):
            argv = command(name)
            variables = {**environ(name, scratch, api.address), "_HANDLER": handler}
            started_at_s = time.perf_counter()
            process = sandbox.start(argv, variables, output=output)
            contestant = Contestant(name, process, sandbox, started_at_s, api, log)
            if warms_up:
                await contestant.first_poll()
                for n in range(WARM_UP_EVENTS):
                    if warm_up_event is None:
                        await contestant.invoke(n)
                    else:
                        await contestant.send(warm_up_event)
            yield contestant


def command(name: str) -> list[str]:
    """Return the command line of a contestant."""
    if name == POLLER:
        return [DENO, "run", "-A", "--no-config", "--quiet", str(HERE / "poller.js")]
    return bootstrap_command()


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
    chosen = SETTINGS.get(name, {"LAMBDA_DENO_WARM": name})
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
