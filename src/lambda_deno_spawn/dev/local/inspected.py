"""The runtime, with a debugger for the processes that it starts.

A program of its own in place of ``bootstrap``. It is in ``dev``, which no layer
contains, so no setting can open an inspector in Lambda: a program that reaches one can
run any code with the function's permissions.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lambda_deno_spawn import bootstrap

if TYPE_CHECKING:
    from typing import NoReturn

    from lambda_deno_spawn.launch.command import DenoCommand


# The handler's module is loaded by a function that the entry module passes on.
IMPORT = "import { start } from"
PAUSING = """
function start(load, ...more) {
  begin(() => {
    debugger; // the function's module is loaded next: set breakpoints, and continue
    return load();
  }, ...more);
}
"""


def main(address: str, *, breaks: bool) -> NoReturn:
    """Run the runtime; each of its processes waits until a debugger has attached.

    Args:
        address: ``host:port`` where the processes listen, one at a time.
        breaks: Pause before the function's module is loaded.
    """
    bootstrap.main(partial(with_inspector, address, breaks=breaks))


def with_inspector(address: str, command: DenoCommand, *, breaks: bool) -> DenoCommand:
    """Return the command of a process that waits for a debugger."""
    text = command.entry_text
    if breaks:
        text = text.replace(IMPORT, "import { start as begin } from") + PAUSING
    arguments = (*command.arguments, f"--inspect-wait={address}")
    return command._replace(arguments=arguments, entry_text=text)
