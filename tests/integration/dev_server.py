"""The command ``dev`` as a process, for tests that call what it serves."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any, Self

import boto3
import httpx
from botocore.config import Config

from tests.integration.harness import marked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

LIMIT_S = 90.0
READ_BYTES = 64 * 1024
END_LIMIT_S = 60.0
MARK_VARIABLE = "LDS_DEV_TEST"


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """Write files by their names below a folder; return it."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


class DevServer:
    """``dev`` with ``-o json``; leaving the context presses Ctrl-C.

    Attributes:
        url: Where it listens.
        code: Its exit code, once it has ended.
    """

    def __init__(
        self,
        *arguments: str | Path,
        environ: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        """Start nothing yet.

        Args:
            arguments: Those of the command.
            environ: Further environment variables.
            wrapper: A command that becomes the one that is given to it.
        """
        self.url = ""
        self._changes: list[dict[str, Any]] = []
        self._unfinished = b""  # of a line
        self.code: int | None = None
        self._mark = uuid.uuid4().hex
        self._wrapper = wrapper
        self._arguments = ["--port", "0", "-o", "json", *map(str, arguments)]
        self._environ = {**os.environ, **(environ or {}), MARK_VARIABLE: self._mark}
        self._grew = threading.Condition()
        self.client = httpx.Client(timeout=LIMIT_S, trust_env=False)

    def __enter__(self) -> Self:
        """Start it, and wait until it listens."""
        self.process = subprocess.Popen(
            [
                *self._wrapper,
                sys.executable,
                *("-m", "lambda_deno_spawn", "dev"),
                *self._arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environ,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        self.url = str(
            self.wait_for(lambda change: change["kind"] == "listening")["url"]
        )
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """End it, and look for what it left."""
        self.client.close()
        try:
            self.stop()
        finally:
            left = self.survivors()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if kind is None:
            assert left == set(), "nothing is left running"
            assert self.code == 130, self.stderr

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Send it a signal, and wait for its end."""
        if self.code is not None:
            return
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.code = self.process.wait(END_LIMIT_S)
        finally:
            self.process.kill()
            self._reading.join(END_LIMIT_S)
            assert self.process.stderr is not None
            self.stderr = self.process.stderr.read().decode()
            self.process.stderr.close()

    @property
    def changes(self) -> list[dict[str, Any]]:
        """What it has written to stdout so far, parsed."""
        # Also what the thread has not come to read: a request may be answered, and what
        # was written before that may still be in the pipe.
        with self._grew:
            self._take()
            return self._changes

    def survivors(self) -> set[int]:
        """Return the processes that it has started and that are alive."""
        return marked(f"{MARK_VARIABLE}={self._mark}")

    def lambda_client(self) -> Any:
        """Return boto3's client for it, which never retries."""
        return boto3.client(
            "lambda",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",
            config=Config(
                retries={"total_max_attempts": 1}, read_timeout=LIMIT_S, proxies={}
            ),
        )

    def wait_for(
        self, is_it: Callable[[dict[str, Any]], bool], since: int = 0
    ) -> dict[str, Any]:
        """Return the first change that is meant, as soon as it is there."""
        end_s = time.monotonic() + LIMIT_S
        with self._grew:
            while True:
                self._take()
                for change in self._changes[since:]:
                    if is_it(change):
                        return change
                if not self._grew.wait(end_s - time.monotonic()):
                    raise TimeoutError(f"not among {self._changes[-20:]}")
                if self.process.poll() is not None and not self._reading.is_alive():
                    raise ChildProcessError("dev has ended")

    def notice(self, text: str, since: int = 0) -> dict[str, Any]:
        """Wait for a notice that contains a text; return it."""

        def is_it(change: dict[str, Any]) -> bool:
            return text in str(change.get("notice", {}).get("text"))

        return dict(self.wait_for(is_it, since)["notice"])

    def ended(self, request_id: str) -> dict[str, Any]:
        """Wait for the end of a request; return its record."""

        def is_it(change: dict[str, Any]) -> bool:
            return (change["kind"], change.get("record", {}).get("id")) == (
                "ended",
                request_id,
            )

        return dict(self.wait_for(is_it)["record"])

    def _read(self) -> None:
        stdout = self.process.stdout
        assert stdout is not None
        is_open = True
        while is_open:
            select.select([stdout], [], [])
            with self._grew:
                is_open = self._take()
                self._grew.notify_all()
        with self._grew:
            stdout.close()

    def _take(self) -> bool:
        """Read what is in the pipe now; False once nothing can follow."""
        stdout = self.process.stdout
        assert stdout is not None
        while not stdout.closed:
            try:
                data = os.read(stdout.fileno(), READ_BYTES)
            except BlockingIOError:
                return True
            if not data:
                break
            *lines, self._unfinished = (self._unfinished + data).split(b"\n")
            self._changes += map(json.loads, lines)
        return False
