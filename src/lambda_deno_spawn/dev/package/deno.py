"""Deno as a tool of the build: its subcommands, with the files of one project.

Knows how Deno is started, which flags a project needs, and what is kept of an error.
Does not know packages, nor what is done with the output. Specification: Deno manual,
"deno bundle", "deno check", "deno info".
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from lambda_deno_spawn.dev.package.helpers import ENVIRON
from lambda_deno_spawn.dev.package.interruption import held_back
from lambda_deno_spawn.errors import BuildError
from lambda_deno_spawn.launch.deno_json import tool_flags
from lambda_deno_spawn.launch.entry import file_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

SHOWN_LINES = 20  # of Deno's error output
# Added to errors by Deno, for its own developers.
BACKTRACE = re.compile(r"\n*Stack backtrace:.*", re.DOTALL)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Adds nothing to the lines before it.
EMPTY_ERROR = re.compile(r"\n*error: bundling failed\n*\Z")
# For esbuild, a program in Go that Deno starts: less work for the collector of garbage,
# until there is so much of it. What the caller has set counts.
BUNDLER_ENVIRON = {"GOGC": "400", "GOMEMLIMIT": "512MiB", **ENVIRON}
BUNDLE_OPTIONS = ("--platform=deno", "--format=esm", "--sourcemap=linked")


class Running:
    """A command that runs while its caller does something else.

    In its context, or once its output was asked for, it never outlives the caller.
    """

    def __init__(
        self,
        command: Sequence[str],
        action: str,
        *,
        folder: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Start a command.

        Args:
            command: The command.
            action: Purpose of the command, for ``Cannot <action>``.
            folder: Where to run it; None: in the present folder.
            environ: Its variables; None: those of this process.

        Raises:
            BuildError: It cannot be started.
        """
        self._action = action
        self._process: subprocess.Popen[str] | None = None
        try:
            with held_back():
                self._process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                )
        except OSError as error:
            raise BuildError(
                f"Cannot start {command[0]!r}: {error.strerror}"
            ) from error
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        """End the process; it writes nothing any more."""
        if self._process is not None:
            self._process.kill()  # does nothing to one that has ended
            self._process.communicate()

    def output(self, *, is_checked: bool = True) -> str:
        """Wait for the end; return the text on stdout.

        Args:
            is_checked: Raise an error if the exit code is not 0.

        Raises:
            BuildError: The command failed; the message contains its output.
        """
        assert self._process is not None
        try:
            stdout, stderr = self._process.communicate()
        except BaseException:
            self._end()
            raise
        if is_checked and self._process.returncode != 0:
            complaint = _complaint(self._process.returncode, stderr or stdout)
            raise BuildError(f"Cannot {self._action}:\n{complaint}")
        return stdout


@dataclass(frozen=True, slots=True)
class Deno:
    """Deno for one project.

    Attributes:
        binary: The executable.
        task_root: The project's folder, which is the working folder of Deno.
        environ: The caller's environment.
    """

    binary: str
    task_root: Path
    environ: Mapping[str, str]

    def start(
        self,
        action: str,
        arguments: Sequence[str],
        *,
        folder: Path | None = None,
        flags: Sequence[str] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Running:
        """Start a subcommand with the project's configuration.

        Args:
            action: Purpose of the command, for ``Cannot <action>``.
            arguments: The subcommand and its arguments.
            folder: Where to run it; None: in the project's folder.
            flags: Flags for the project files; None: those of the project.
            environ: Variables that are set unless the caller has set them.

        Raises:
            BuildError: It cannot be started.
        """
        if flags is None:
            flags = tool_flags(self.task_root)
        return Running(
            [self.binary, arguments[0], "--quiet", *flags, *arguments[1:]],
            action,
            folder=folder or self.task_root,
            environ={
                **(environ or {}),
                **self.environ,
                "NO_COLOR": "1",
                "DENO_NO_UPDATE_CHECK": "1",
            },
        )

    def run(
        self,
        action: str,
        arguments: Sequence[str],
        *,
        folder: Path | None = None,
        flags: Sequence[str] | None = None,
    ) -> str:
        """Run a subcommand like ``start``; return its stdout.

        Raises:
            BuildError: The command failed; the message contains its output.
        """
        return self.start(action, arguments, folder=folder, flags=flags).output()

    def check(self, file: Path) -> None:
        """Type-check a module and its imports.

        Raises:
            BuildError: There are type errors.
        """
        self.run(f"check the types of {file.name!r}", ["check", file_url(file)])

    def start_bundle(
        self,
        file: Path,
        target: Path,
        *,
        external: Iterable[str] = (),
        minify: bool = False,
    ) -> Running:
        """Start to bundle a module and its imports; create the bundle's folder.

        Args:
            file: The module.
            target: Path of the bundle; its source map is written beside it.
            external: Names of packages that stay imports.
            minify: Minify the bundle.

        Raises:
            BuildError: It cannot be started.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        options = [*BUNDLE_OPTIONS]
        options += [f"--external={name}" for name in sorted(external)]
        # Types of errors are names of classes.
        options += ["--minify", "--keep-names"] if minify else []
        command = ["bundle", *options, "-o", str(target), file_url(file)]
        action = f"bundle {file.name!r}"
        return self.start(action, command, environ=BUNDLER_ENVIRON)


def start_version(binary: str) -> Running:
    """Let a Deno print its version.

    Raises:
        BuildError: It cannot be started.
    """
    try:
        return Running([binary, "--version"], "read the version of Deno")
    except BuildError as error:
        raise BuildError(f"{error}; give a Deno that this machine can run") from error


def read_version(running: Running, binary: str) -> str:
    """Return the version that ``start_version`` lets a Deno print.

    Raises:
        BuildError: It prints none.
    """
    words = running.output(is_checked=False).split()
    if words[:1] != ["deno"]:
        raise BuildError(
            f"Cannot use {binary!r}: it does not print a version of Deno; give a "
            "Deno binary"
        )
    return words[1]


def _complaint(returncode: int, said: str) -> str:
    said = COLOUR.sub("", said)
    said = EMPTY_ERROR.sub("", BACKTRACE.sub("", said).strip())
    lines = said.splitlines()
    if len(lines) > SHOWN_LINES:
        more = f"and {len(lines) - SHOWN_LINES} more lines"
        said = "\n".join([*lines[:SHOWN_LINES], more])
    return said or f"Deno exited with code {returncode} and no message"
