"""The bundler of a first build, started before the command line is parsed.

The libraries that parse it take as long to import as a quarter of the bundling. This
module reads just enough of it to guess what the command will start, and guesses only
where every word is known. A wrong guess costs time and changes nothing: the build takes
over what it would have started itself, and nothing else. Does not know any option's
meaning for a package. Specification: docs/build.md, "How long it takes".
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lambda_deno_spawn.dev.local.runtime import deno_binary
from lambda_deno_spawn.dev.package.begun import begun_early
from lambda_deno_spawn.dev.package.deno import Deno
from lambda_deno_spawn.dev.package.record import is_current
from lambda_deno_spawn.dev.package.request import package_path
from lambda_deno_spawn.dev.project.target import find_project, find_target
from lambda_deno_spawn.errors import LambdaDenoSpawnError
from lambda_deno_spawn.launch.handler import find_handler

if TYPE_CHECKING:
    from collections.abc import Sequence

# Options of `build` with a value; these matter here.
MATTERS = {"--handler", "--name", "--out", "--stage"}
VALUES = {
    *MATTERS, "--arch", "--base", "--env", "--env-file", "--output", "--profile",
    "--push", "--python-dir", "--region", "--tar", "--target-deno", "-o", "-p", "-r",
}  # fmt: skip
# Options without a value; with others nothing is bundled, or not at first.
FLAGS = {
    "--bundle", "--cache", "--image", "--minify", "--no-cache", "--no-source-map",
    "--source-map", "--verbose", "-v",
}  # fmt: skip


class Words(NamedTuple):
    """What matters of a command line of ``build``."""

    function: str = "."
    handler: str | None = None
    name: str | None = None
    out: str = "dist"
    stage: str | None = None


def read(words: Sequence[str]) -> Words | None:
    """Return what matters of the arguments of ``build``; None: not all is known."""
    found: dict[str, str] = {}
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if word in FLAGS:
            continue
        option, equals, value = word.partition("=")
        if option in VALUES and (equals or waiting):
            value = value if equals else waiting.pop(0)
            if option in MATTERS:
                found[option.removeprefix("--")] = value
        elif word.startswith("-") or "function" in found:
            return None
        else:
            found["function"] = word
    return Words(**found)


def start_early(words: Sequence[str]) -> contextlib.AbstractContextManager[object]:
    """Start the bundler that a command line of ``build`` will ask for.

    Args:
        words: Arguments of the command.

    Returns:
        A context, at whose end the bundler has ended.
    """
    running = contextlib.ExitStack()
    given = read(words)
    # What is wrong here, the command reports.
    with contextlib.suppress(LambdaDenoSpawnError, OSError, ValueError):
        if given is not None:
            target = find_target(given.function, given.handler, given.stage)
            project = find_project(target, given.handler, given.name)
            package = package_path(Path(given.out), project.name)
            if project.bundle is not False and not is_current(package):
                root, handler = project.function.task_root, project.function.handler
                deno = Deno(deno_binary(os.environ), root, dict(os.environ))
                source = Path(find_handler(root, handler).path)
                running.enter_context(begun_early(deno, source))
    return running
