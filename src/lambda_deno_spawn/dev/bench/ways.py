"""The ways to serve the events of a function: this runtime's, and two baselines.

Knows the settings and the command line of each. Starts none. Specification:
docs/bench.md.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_deno_spawn.launch.deno_json import config_flags, find_project
from lambda_deno_spawn.launch.entry import file_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lambda_deno_spawn.launch.handler import Handler

DRIVER = Path(__file__).with_name("driver.js")
# Not a part of what is measured: the signal that it asks for needs an extension.
IGNORED = ("LAMBDA_DENO_SIGTERM",)


class Way(StrEnum):
    """A way to serve the events of a function."""

    FORK = "fork"
    EXEC = "exec"
    REUSE = "reuse"
    SERVER = "server"
    POLLER = "poller"
    BARE = "bare"

    @property
    def is_baseline(self) -> bool:
        """True if this runtime has no part in it."""
        return self in (Way.POLLER, Way.BARE)


DESCRIPTIONS: Mapping[Way, str] = {
    Way.FORK: "a copy of a loaded process for each event",
    Way.EXEC: "a `deno run` for each event, started ahead of it",
    Way.REUSE: "one process for all events, one at a time",
    Way.SERVER: "one process for all events, over HTTP",
    Way.POLLER: "one Deno process that polls the Runtime API by itself",
    Way.BARE: "a bare `deno run` of the module for each event",
}
_FRESH = {"LAMBDA_DENO_STRATEGY": "fresh", "LAMBDA_DENO_MAX_INVOCATIONS": "1"}
SETTINGS: Mapping[Way, Mapping[str, str]] = {
    # `fork` instead of `auto`: init fails with the reason if it is impossible. The
    # metrics say of each event whether it was served by a copy; they cost 0.1 ms.
    Way.FORK: {
        **_FRESH,
        "LAMBDA_DENO_START": "fork",
        "LAMBDA_DENO_METRICS": "json",
    },
    Way.EXEC: {**_FRESH, "LAMBDA_DENO_START": "exec"},
    Way.REUSE: {
        "LAMBDA_DENO_STRATEGY": "fresh",
        "LAMBDA_DENO_START": "exec",
        "LAMBDA_DENO_MAX_INVOCATIONS": "1000000",
    },
    Way.SERVER: {
        "LAMBDA_DENO_STRATEGY": "server",
        "LAMBDA_DENO_START": "exec",
        "LAMBDA_DENO_MAX_INVOCATIONS": "",  # no limit
    },
}
# `fork` loads a second process in init, to see whether it can be copied; `auto`, which
# people use, does that after the first events.
COLD_SETTINGS: Mapping[Way, Mapping[str, str]] = {
    **SETTINGS,
    Way.FORK: {**_FRESH, "LAMBDA_DENO_START": "auto"},
}


def baseline_command(deno: str, task_root: Path, entry: Path) -> list[str]:
    """Return the command line of a baseline, with the function's own ``deno.json``."""
    return [
        deno, "run", "--quiet", "--no-prompt", "--allow-all", "--unstable-detect-cjs",
        *config_flags(find_project(task_root), task_root), str(entry),
    ]  # fmt: skip


def poller_source(handler: Handler) -> str:
    """Return the program of the polling process."""
    return _program("poll", handler)


def bare_source(handler: Handler, event_file: Path, linger_ms: int = 0) -> str:
    """Return the program that calls the handler once.

    Args:
        handler: The handler.
        event_file: Holds the event.
        linger_ms: How long the process lives on after the result.
    """
    return _program("once", handler, f', "{file_url(event_file)}", {linger_ms}')


def _program(function: str, handler: Handler, more: str = "") -> str:
    # A literal import, which Deno's caches see, as in the runtime's own entry module.
    path = json.dumps(handler.export)
    return (
        f'import {{ {function} }} from "{file_url(DRIVER)}";\n'
        f'{function}(() => import("{file_url(handler.path)}"), {path}{more});\n'
    )
