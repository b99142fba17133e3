"""Our command line, which kills itself before one of the steps that leave a trace.

``python -m tests.killed STEP FILE ARGUMENT…`` ends by SIGKILL before the step with this
number; with 0 it runs to its end, and writes the number of its steps to the file. A
step is a file opened for writing, made, renamed or removed, a program started, a
request to a registry, or a call of AWS. With ``--writes-only`` before the number, only
requests and calls that write are steps. Nothing in the command can catch that.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

EVENTS = frozenset(
    {
        "os.rename", "os.link", "os.symlink", "os.mkdir", "os.remove", "os.rmdir",
        "os.chmod", "shutil.copyfile", "subprocess.Popen", "os.posix_spawn",
    }
)  # fmt: skip
READS = ("Get", "List", "Describe", "Head")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Steps:
    """Counts steps, and kills this process before one of them."""

    def __init__(self, last: int) -> None:
        self.count = 0
        self._last = last

    def take(self) -> None:
        self.count += 1
        if self.count == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        is_step = event in EVENTS
        if event == "open" and isinstance(arguments[2], int):
            is_step = bool(arguments[2] & WRITES) and arguments[0] != os.devnull
        if is_step:
            self.take()

    def before(self, owner: type, name: str, counts: Callable[[Any], bool]) -> None:
        """Count each call of a method whose first argument counts."""
        real = getattr(owner, name)

        def method(self_: Any, first: Any, *given: Any, **named: Any) -> Any:
            if counts(first):
                self.take()
            return real(self_, first, *given, **named)

        setattr(owner, name, method)


def main() -> None:
    """Run the command."""
    is_writes_only = sys.argv[1] == "--writes-only"
    last, file, *arguments = sys.argv[2 if is_writes_only else 1 :]
    from lambda_deno_spawn.dev.aws.session import Aws
    from lambda_deno_spawn.dev.package.registry import Registry

    steps = Steps(int(last))
    steps.before(
        Registry,
        "_send",
        lambda method: not is_writes_only or method not in ("GET", "HEAD"),
    )
    steps.before(
        Aws,
        "call",
        lambda call: not is_writes_only or not call.operation.startswith(READS),
    )
    if not is_writes_only:
        sys.addaudithook(steps.on_event)
    sys.argv = ["lambda-deno-spawn", *arguments]
    try:
        runpy.run_module("lambda_deno_spawn", run_name="__main__", alter_sys=True)
    finally:
        total = steps.count
        Path(file).write_text(str(total))


if __name__ == "__main__":
    main()
