"""A debugger for the process of a local invocation: settings, port, how to attach.

Knows what an invocation needs so that a person can take their time over it. Does not
know the protocol of debuggers, which Deno speaks. Specification: docs/debugging.md.
"""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from lambda_deno_spawn.config import Settings, Start
from lambda_deno_spawn.dev.project.function import Inspect
from lambda_deno_spawn.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_deno_spawn.dev.project.function import InvokeOptions

# No person debugs for longer, and a timer of JavaScript's can last so long (2^31 ms).
TIMEOUT_S = 7 * 24 * 3600.0
# The process begins when its event has arrived, so that one process at a time has the
# port; and as a `deno run`, because a fork has no inspector.
VARIABLES = {"LAMBDA_DENO_START": "exec", "LAMBDA_DENO_WARM": "off"}


def choose_inspect(port: int, *, breaks: bool) -> Inspect:
    """Return where a debugger attaches, after a look whether the port is free.

    Args:
        port: 0: any that is free.
        breaks: Pause at the first line of the handler's file that runs.

    Raises:
        UsageError: The port is taken.
    """
    with socket.socket() as probe:
        # As Deno does; a connection that has just ended does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(
                f"Cannot use port {port} for the debugger: "
                f"{(error.strerror or str(error)).lower()}; end the program that uses "
                "it, or give another one with --inspect-port (0: any that is free)"
            ) from error
        return Inspect(probe.getsockname()[1], breaks)


def inspected(options: InvokeOptions) -> InvokeOptions:
    """Return the options of an invocation that a person looks into."""
    variables = {**options.variables, **VARIABLES}
    return replace(options, variables=variables, timeout_s=TIMEOUT_S, warm=None)


def how_to_attach(options: InvokeOptions, environ: Mapping[str, str]) -> str:
    """Return what to do now, for the person who asked for a debugger.

    Args:
        options: Those of the invocation; it is inspected.
        environ: The caller's environment.
    """
    inspect = options.inspect
    assert inspect is not None
    lines = [
        f"Waiting for a debugger at {inspect.address}; the timeout is suspended.",
        '  VS Code: Run and Debug, "Attach to the function" (.vscode/launch.json)',
        "  Chrome:  open chrome://inspect and choose the target"
        + ("" if inspect.port == 9229 else f"; Configure: add {inspect.address}"),
    ]
    if _start({**environ, **options.variables}) is not Start.EXEC:
        lines.append(
            "  A forked process cannot be debugged: this one begins as a `deno run`."
        )
    return "\n".join(lines)


def _start(variables: Mapping[str, str]) -> Start:
    """Return how processes would begin without a debugger."""
    name = "LAMBDA_DENO_START"
    required = {"AWS_LAMBDA_RUNTIME_API": "-", "_HANDLER": "-"}
    given = {name: variables[name]} if name in variables else {}
    return Settings.from_environ({**required, **given}, "/").start
