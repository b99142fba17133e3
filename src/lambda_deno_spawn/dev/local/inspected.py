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


# The entry module calls `start` with a function that loads the handler's module.
IMPORT = "import { start } from"
BEGIN = "import { start as begin } from"
# A debugger finds the places of breakpoints in the source map, once the module is
# loaded. It is not waited for: a moment later the handler runs.
WAITING = """
function start(load, ...more) {
  begin(async () => {
    const module = await load();
    await new Promise((resolve) => setTimeout(resolve, 500));
    return module;
  }, ...more);
}
"""
# Deno's own flag pauses in the runtime. A session in the process has the debugger pause
# at the first line of the handler's file that runs.
PAUSING = """
import { Session } from "node:inspector";

function start(load, ...more) {
  const [, url] = /.*import\\("(.*)"\\)/s.exec(String(load));
  begin(async () => {
    try {
      const session = new Session();
      session.connect();
      session.once("Debugger.resumed", () => setTimeout(() => session.disconnect()));
      session.post("Debugger.enable");
      session.post("Debugger.setBreakpointByUrl", { url, lineNumber: 0 });
    } catch { // the function may not use an inspector
      debugger; // next, the function's module is loaded
    }
    return await load();
  }, ...more);
}
"""

# Flags beside which that of the session in the process has no place, or no use.
MAY_INSPECT = ("--allow-sys", "--allow-all", "--deny-sys", "-P")


def main(address: str, *, breaks: bool) -> NoReturn:
    """Run the runtime; each of its processes waits until a debugger has attached.

    Args:
        address: ``host:port`` where the processes listen, one at a time.
        breaks: Pause at the first line of the handler's file that runs.
    """
    bootstrap.main(partial(with_inspector, address, breaks=breaks))


def with_inspector(address: str, command: DenoCommand, *, breaks: bool) -> DenoCommand:
    """Return the command of a process that waits for a debugger."""
    text = command.entry_text.replace(IMPORT, BEGIN)
    arguments = [*command.arguments, f"--inspect-wait={address}"]
    given = (*command.permissions, command.permission_set or "")
    if breaks and not any(flag.startswith(MAY_INSPECT) for flag in given):
        arguments.append("--allow-sys=inspector")
    return command._replace(
        arguments=tuple(arguments),
        entry_text=text + (PAUSING if breaks else WAITING),
    )
