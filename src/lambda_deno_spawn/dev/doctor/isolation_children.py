"""Child processes that hide, for the probe of ``doctor --isolation``.

A separate program, started by the handler's first event: it starts one process of each
kind, and prints their ids to stdout, one per line. Knows how processes can hide. Does
not know how they are searched for. Each process exits by itself after a minute.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

LIFE_S = 60
KERNEL_NAME = "[kworker/0:1]"


def main() -> None:
    """Start one process of each kind, print their ids, and wait."""
    say(f"child {os.getpid()}")
    for kind, hide in KINDS.items():
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.close(reader)
            os.setsid()
            hide(lambda: report(writer))  # noqa: B023 - runs before the loop goes on
            os._exit(1)
        os.close(writer)
        say(f"{kind} {os.read(reader, 32).decode()}")
        os.close(reader)
    say("end")
    time.sleep(LIFE_S)


def say(line: str) -> None:
    """Write a line to stdout, unbuffered."""
    os.write(1, f"{line}\n".encode())


def report(writer: int) -> None:
    """Report the id of this process."""
    os.write(writer, str(os.getpid()).encode())
    os.close(writer)


def session(tell: Callable[[], None]) -> None:
    """Wait in another session."""
    tell()
    time.sleep(LIFE_S)


def double_fork(tell: Callable[[], None]) -> None:
    """Become a daemon, whose parent has exited."""
    leave_parent()
    tell()
    time.sleep(LIFE_S)


def renamed(tell: Callable[[], None]) -> None:
    """Look like a kernel thread."""
    tell()
    become(KERNEL_NAME, dict(os.environ))


def clean_environment(tell: Callable[[], None]) -> None:
    """Have an empty environment, without identifying variables."""
    tell()
    become("sleep", {})


def ignores_signals(tell: Callable[[], None]) -> None:
    """Ignore every signal that can be ignored."""
    ignore_signals()
    tell()
    time.sleep(LIFE_S)


def stopped(tell: Callable[[], None]) -> None:
    """Stop, so that only SIGCONT and SIGKILL have an effect."""
    tell()
    os.kill(os.getpid(), signal.SIGSTOP)


def everything(tell: Callable[[], None]) -> None:
    """Use all of these ways at once."""
    leave_parent()
    ignore_signals()
    tell()
    become(KERNEL_NAME, {})


def leave_parent() -> None:
    """Continue in a child process whose parent has exited."""
    if os.fork() != 0:
        os._exit(0)


def ignore_signals() -> None:
    """Ignore every signal that can be ignored."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            continue  # the C library reserves a few


def become(name: str, environ: dict[str, str]) -> NoReturn:
    """Become ``sleep`` under another name."""
    program = shutil.which("sleep") or "/bin/sleep"
    os.execve(program, [name, str(LIFE_S)], environ)


KINDS = {
    "child-session": session,
    "child-double-fork": double_fork,
    "child-renamed": renamed,
    "child-clean-environment": clean_environment,
    "child-ignores-signals": ignores_signals,
    "child-stopped": stopped,
    "child-everything": everything,
}

if __name__ == "__main__":
    main()
