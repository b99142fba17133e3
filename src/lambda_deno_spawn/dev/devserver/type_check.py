"""Deno's type checker, run beside the functions when their files are saved.

Knows how ``deno check`` is started, with low priority, and stopped by the next save.
Does not know when that is. What it finds is a notice; the function runs all the same,
as it would on Lambda. Specification: docs.deno.com, "deno check".
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from typing import TYPE_CHECKING

from lambda_deno_spawn.dev.devserver.journal import Notice
from lambda_deno_spawn.errors import HandlerError
from lambda_deno_spawn.launch.handler import find_handler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_deno_spawn.dev.devserver.functions import ServedFunction
    from lambda_deno_spawn.dev.devserver.journal import Journal

CHECKED_SUFFIXES = (".ts", ".tsx", ".mts", ".cts")
PRIORITY = 10  # a nice value: the function's own processes come first
OUTPUT_LIMIT = 8000  # characters of a notice
# Colours, and a line that says which file is being checked.
DECORATION = re.compile(r"\x1b\[[0-9;]*m|^Check .*\n", re.MULTILINE)


class TypeChecker:
    """Checks functions in the background; closing it ends what runs."""

    def __init__(self, deno: str, environ: Mapping[str, str], journal: Journal) -> None:
        """Check nothing yet.

        Args:
            deno: Deno's executable.
            environ: The developer's environment.
            journal: Told of what is found.
        """
        self._deno = deno
        self._environ = {**environ, "NO_COLOR": "1"}
        self._journal = journal
        self._running: dict[str, asyncio.Task[None]] = {}
        self._found: dict[str, str] = {}

    def check(self, function: ServedFunction) -> None:
        """Check a function; a check of it that runs is about code that is gone."""
        former = self._running.pop(function.name, None)
        if former is not None:
            former.cancel()
        code = function.project.function
        with contextlib.suppress(HandlerError):  # which its next event tells
            path = find_handler(code.task_root, code.handler).path
            if path.endswith(CHECKED_SUFFIXES):
                task = asyncio.create_task(self._check(function, path))
                self._running[function.name] = task

    async def aclose(self) -> None:
        """End the checks that run."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _check(self, function: ServedFunction, path: str) -> None:
        text = await self._run(function, path)
        name = function.name
        if text == self._found.get(name, ""):
            return  # it has been told
        self._found[name] = text
        if text:
            self._tell(name, "error", text)
        else:
            self._tell(name, "info", "has no type errors any more")

    async def _run(self, function: ServedFunction, path: str) -> str:
        """Return what the type checker prints; empty if it finds nothing."""
        process = await asyncio.create_subprocess_exec(
            self._deno,
            "check",
            path,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=function.folder,
            env=self._environ,
            start_new_session=True,
        )
        try:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, process.pid, PRIORITY)
            output, _ = await process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if process.returncode == 0:
            return ""
        text = DECORATION.sub("", output.decode(errors="replace")).strip()
        return text if len(text) <= OUTPUT_LIMIT else f"{text[:OUTPUT_LIMIT]}\u2026"

    def _tell(self, name: str, level: str, text: str) -> None:
        self._journal.notice(Notice(time.time() * 1000, level, text, name))
