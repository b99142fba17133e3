"""A runtime that is measured: a process in a sandbox, behind a Runtime API of its own.

Knows how one is started, given events, and noticed to have failed. Does not know which
runtime it is, or what is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import psutil

from lambda_deno_spawn.dev.bench.runtime_api import (
    DEADLINE_S,
    RESPONSE_TIMEOUT_S,
    InitFailedError,
    RuntimeApi,
)
from lambda_deno_spawn.dev.local.process_tree import memory_bytes
from lambda_deno_spawn.errors import LambdaDenoSpawnError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import (
        AsyncIterator,
        Callable,
        Coroutine,
        Iterable,
        Mapping,
        Sequence,
    )
    from pathlib import Path

    from lambda_deno_spawn.dev.bench.runtime_api import Response
    from lambda_deno_spawn.dev.bench.sandbox import Sandbox

T = TypeVar("T")
LOG_TAIL_BYTES = 2000
EXIT_CHECK_S = 0.1  # how soon the end of a runtime is noticed


class ContestantError(LambdaDenoSpawnError):
    """A runtime did not do what it was given to do.

    Attributes:
        reason: What happened, in one line.
        is_of_function: The handler failed, not the runtime.
    """

    def __init__(
        self, name: str, reason: str, log_tail: str, *, is_of_function: bool = False
    ) -> None:
        self.reason = reason
        self.is_of_function = is_of_function
        end = f"; its log ends with:\n{log_tail}" if log_tail else "; its log is empty"
        super().__init__(f"Runtime {name!r}: {reason}{end}")


@dataclass(frozen=True, slots=True)
class Contestant:
    """A runtime that waits for its next event.

    Attributes:
        name: Its name in messages.
        process: The process that Lambda would start.
        sandbox: Contains that process and all its descendants.
        api: Its Runtime API.
        log: What it prints.
        started_at_s: Time just before its start (``time.perf_counter``).
    """

    name: str
    process: subprocess.Popen[bytes]
    sandbox: Sandbox
    api: RuntimeApi
    log: Path
    started_at_s: float

    async def send(self, event: bytes) -> Response:
        """Deliver an event; return after the ``next`` that follows its response.

        Raises:
            ContestantError: No response, or an error.
        """
        response = await self._or_exit(self.api.invoke(event), "respond")
        if response.is_error:
            raise self.error(error_text(response.body), is_of_function=True)
        return response

    async def first_poll(self) -> float:
        """Return how long it took from the start to the first ``next``, in seconds.

        Raises:
            ContestantError: It exited or reported an init error instead.
        """
        await self._or_exit(self.api.polled(), "ask for an event")
        return self.api.polled_at_s - self.started_at_s

    def memory_bytes(self) -> int:
        """Return the memory of all its processes."""
        return memory_of(self.sandbox.process_ids())

    def error(self, reason: str, *, is_of_function: bool = False) -> ContestantError:
        """Return an error with the end of the log."""
        return ContestantError(
            self.name, reason, log_tail(self.log), is_of_function=is_of_function
        )

    async def _or_exit(self, call: Coroutine[object, object, T], what: str) -> T:
        task = asyncio.ensure_future(call)
        try:
            while not task.done():
                has_exited = self.process.poll() is not None
                # After an exit too: its last call may be on its way.
                await asyncio.wait({task}, timeout=EXIT_CHECK_S)
                if has_exited and not task.done():
                    raise self.error(exit_text(self.log, self.process.returncode))
            return task.result()
        except TimeoutError:
            raise self.error(f"it did not {what}") from None
        except InitFailedError as error:
            raise self.error(error_text(error.body)) from None
        finally:
            task.cancel()


@asynccontextmanager
async def running(
    name: str,
    argv: Sequence[str],
    variables: Callable[[str], Mapping[str, str]],
    log: Path,
    sandbox: Sandbox,
    *,
    freezes: bool,
    deadline_s: float = DEADLINE_S,
    limit_s: float = RESPONSE_TIMEOUT_S,
) -> AsyncIterator[Contestant]:
    """Start a runtime; on exit, kill it and close its sandbox.

    Args:
        name: Its name in messages.
        argv: Its command line.
        variables: Returns its environment for the address of the Runtime API.
        log: Receives what it prints.
        sandbox: Where it runs.
        freezes: Whether the Runtime API freezes it while it waits.
        deadline_s: How much time it is told that it has for an event.
        limit_s: How long to wait for each of its calls.
    """
    frozen = sandbox if freezes else None
    async with RuntimeApi(frozen, deadline_s=deadline_s, limit_s=limit_s) as api:
        with log.open("wb") as output, contextlib.closing(sandbox):
            environ = variables(api.address)
            started_at_s = time.perf_counter()
            process = sandbox.start(argv, environ, output=output)
            yield Contestant(name, process, sandbox, api, log, started_at_s)


def memory_of(pids: Iterable[int]) -> int:
    """Return the memory of processes in bytes, with shared memory counted once."""
    total = 0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):  # it may exit meanwhile
            total += memory_bytes(psutil.Process(pid))
    return total


def log_tail(log: Path) -> str:
    """Return the end of a log."""
    return log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").rstrip()


def exit_text(log: Path, returncode: int) -> str:
    """Return how a program ended, and its last words, in one line."""
    lines = log_tail(log).splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    words = (errors or lines[-1:] or [""])[0].removeprefix("error: ")
    return f"it exited {returncode}: {words}" if words else f"it exited {returncode}"


def error_text(body: bytes) -> str:
    """Return an error that was posted, in one line."""
    try:
        error = json.loads(body)
    except ValueError:
        error = None
    if not isinstance(error, dict):
        return body[:500].decode(errors="replace") or "an error without a description"
    message = str(error.get("errorMessage", "")).strip().partition("\n")[0]
    parts = (str(error.get("errorType", "")), message)
    return ": ".join(part for part in parts if part) or "an error without a description"
