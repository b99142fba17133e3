"""The question that a command asks, answered by keys on a pseudo-terminal."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fixtures.cloud import Cloud

PROMPT = "Continue? [y/N]: "
LIMIT_S = 90.0
# The terminal has to be the session's, or Ctrl-C is a byte and not a signal.
START = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.executable, [sys.executable, '-m', 'lambda_deno_spawn', "
    "*sys.argv[1:]])"
)


@pytest.fixture
def cloud(empty_cloud: Cloud) -> Cloud:
    empty_cloud.build_layers()
    empty_cloud.deployed()
    return empty_cloud


def type_at_prompt(keys: str, *arguments: str) -> tuple[int, str, str]:
    """Run a command and press keys at its prompt.

    Returns:
        Exit code, standard output, and what the terminal shows.
    """
    terminal, child_end = os.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", START, *arguments],
            stdin=child_end,
            stdout=subprocess.PIPE,
            stderr=child_end,
            start_new_session=True,
        )
        os.close(child_end)
        with process:
            try:
                shown = read_until(terminal, PROMPT)
                wait_until_it_reads(process.pid)
                os.write(terminal, keys.encode())
                shown += read_until(terminal, None)
                stdout, _ = process.communicate(timeout=LIMIT_S)
            finally:
                process.kill()
    finally:
        os.close(terminal)
    return process.returncode, stdout.decode(), shown.replace("\r\n", "\n")


def wait_until_it_reads(pid: int) -> None:
    """Wait until a process sleeps, which after a question it does to read the answer.

    Python notes a signal, and looks at it between two steps of its own or when a read
    ends. One that comes after the question, but before the read, waits for the next
    key: a person presses Ctrl-C again then.
    """
    deadline_s = time.monotonic() + LIMIT_S
    stat = Path(f"/proc/{pid}/stat")
    while not (state := stat.read_text().rpartition(") ")[2]).startswith("S"):
        assert time.monotonic() < deadline_s, f"process {pid} does not wait: {state}"
        time.sleep(0.01)


def read_until(terminal: int, text: str | None) -> str:
    """Read a terminal until it shows a text, or until its other end is closed."""
    shown = b""
    deadline_s = time.monotonic() + LIMIT_S
    while text is None or text.encode() not in shown:
        left_s = max(0.0, deadline_s - time.monotonic())
        ready, _, _ = select.select([terminal], [], [], left_s)
        assert ready, f"the terminal shows {shown!r}, and not {text!r}"
        data = b""
        with contextlib.suppress(OSError):  # EIO, which is Linux's end of file
            data = os.read(terminal, 65_536)
        if not data:
            assert text is None, f"the terminal shows {shown!r}, and not {text!r}"
            break
        shown += data
    return shown.decode()


def is_deployed(cloud: Cloud) -> bool:
    return bool(cloud.client("lambda").list_functions()["Functions"])


@pytest.mark.cases(1)
@pytest.mark.parametrize("keys", ["y\n", "YES\n", "what\ny\n"])
def test_yes_goes_on(cloud: Cloud, keys: str) -> None:
    exit_code, stdout, shown = type_at_prompt(keys, "delete", "fn", "-o", "json")
    assert exit_code == 0, shown
    assert stdout.startswith('{"deleted": [')
    assert shown.count(PROMPT) == (2 if "what" in keys else 1)
    assert not is_deployed(cloud)


@pytest.mark.cases(1)
@pytest.mark.parametrize("keys", ["n\n", "\n"], ids=["n", "enter"])
def test_no_changes_nothing(cloud: Cloud, keys: str) -> None:
    exit_code, stdout, shown = type_at_prompt(keys, "delete", "fn")
    assert (exit_code, stdout) == (2, "")
    assert shown.splitlines()[-1] == (
        "Cannot continue: the answer was no; nothing was changed"
    )
    assert is_deployed(cloud)


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    "keys", ["\x03", "\x04", "y\x03", "y\x04\x04"],
    ids=["ctrl-c", "ctrl-d", "y-ctrl-c", "y-ctrl-d"],
)  # fmt: skip
def test_leaving_the_prompt_changes_nothing(cloud: Cloud, keys: str) -> None:
    """It said "Cannot complete the command: Abort: ;" and ended with 1."""
    exit_code, stdout, shown = type_at_prompt(keys, "delete", "fn")
    assert (exit_code, stdout) == (130, "")
    assert shown.splitlines()[-1] == "Interrupted: nothing was changed"
    assert is_deployed(cloud)
